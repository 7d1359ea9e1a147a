"""What the command line can do: each command is a function, whose signature gives its options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.reading import find_recipe, load_recipe, shipped_recipes
from tracegrad.lab.report.table import Table

RUNS = Path("runs")
REPORT = "report.html"


def train(
    recipe: Recipe,
    method: str | None = None,
    seed: int | None = None,
    output: Path | None = None,
    resume: bool = True,
) -> None:
    """Trains one network of a recipe and measures its accuracy and spikes on the test set.

    An interrupted run goes on after the last epoch that it finished: start it again.

    Args:
        recipe: the recipe.
        method: one of the recipe's methods; by default the first that scales gradients, or the first of all.
        seed: seed of the initial weights and the order of data; by default the recipe's first.
        output: folder of the study; the run goes to METHOD/seed-N in it. By default runs/NAME.
        resume: go on with an interrupted run after the last epoch that it finished; --no-resume begins it again.
    """
    from tracegrad.lab.ranks import is_first
    from tracegrad.lab.runs.run import plan
    from tracegrad.lab.studies.study import run_all

    method = method or next(
        (name for name, options in recipe.methods.items() if options.alpha), next(iter(recipe.methods))
    )
    single = recipe.only(method, recipe.seeds[0] if seed is None else seed)
    (run,) = plan(single, output or RUNS / recipe.name)
    console = _console()
    run_all([run], console, resume)
    if not is_first():
        return
    if run.diverged:
        raise ValueError(run.diverged)
    _say(console, f"everything about this run is in {run.folder}")


def study(
    recipe: Recipe,
    output: Path | None = None,
    *,
    wait: bool = True,
    plan: float | None = None,
    ray: bool | str = False,
) -> None:
    """Trains every method of a recipe with every seed, and compares them in a table and a figure.

    Complete runs are kept and an interrupted one goes on: to go on with a study, start it again. Started several times
    at once, on any machines that share the folder, each run is trained by one of the processes.

    Args:
        recipe: the recipe.
        output: folder of the study. By default runs/NAME.
        wait: for runs that other processes train; --no-wait leaves at once, without tables.
        plan: train nothing, and tell from the runs in the folder how many seeds it takes to see a difference in test
            accuracy of this many points, such as 0.5.
        ray: train on Ray: at the address of a cluster, or without one on all cores and GPUs of this machine.
    """
    from tracegrad.lab.ranks import is_first
    from tracegrad.lab.report.comparing import planning_table
    from tracegrad.lab.report.writing import write_report, write_study
    from tracegrad.lab.runs.run import plan as runs_of
    from tracegrad.lab.studies.on_ray import run_on_ray
    from tracegrad.lab.studies.study import run_all

    console, folder = _console(), output or RUNS / recipe.name
    if plan is not None:
        _show(console, planning_table(folder, plan))
        return
    others = []
    if ray:
        run_on_ray(recipe, folder, console, None if ray is True else ray)
    else:
        others = run_all(runs_of(recipe, folder), console, wait=wait)
    if not is_first():
        return
    if others:
        _say(console, f"others are still training {len(others)} runs of {folder}; start it again for the tables")
        return
    tables = write_study(recipe, folder)
    page = write_report([folder], folder / REPORT)
    _show(console, *tables.values())
    _say(console, f"tables and figures are in {folder}; open {page}")


def evaluate(run: Path, part: Literal["test", "validation"] = "test", time_steps: list[int] | None = None) -> None:
    """Measures a trained network at every number of time steps, layer by layer and class by class.

    Writes tables and pictures to RUN/evaluation.

    Args:
        run: folder of a complete run, such as runs/NAME/METHOD/seed-0.
        part: of the data.
        time_steps: numbers of time steps to measure at, besides the trained one; from 1 to twice that by default.
    """
    from tracegrad.lab.report.evaluation import evaluate_run

    console = _console()
    _show(console, *evaluate_run(run, part, time_steps).tables())
    _say(console, f"tables and pictures are in {run / 'evaluation'}")


def diagnose(runs: list[Path], batches: int = 4, batch_size: int = 64, output: Path | None = None) -> None:
    """Tells what each rule of gradient scaling would do to trained networks, without training them.

    By what angle it turns gradients, what of its relation is rates, what is counts and what is timing, and which rules
    agree: means and ranges over synapses and runs. Writes a table, a picture and all numbers.

    Args:
        runs: folders of complete runs, such as runs/NAME/METHOD/seed-0.
        batches: of training images.
        batch_size: images in each; two at least.
        output: folder of what is written; by default `diagnosis` in the run's, or in the one that holds all runs.
    """
    from tracegrad.lab.report.diagnosis import diagnose_runs

    console = _console()
    table, folder = diagnose_runs(runs, batches, batch_size, output)
    _show(console, table)
    _say(console, f"table and picture are in {folder}")


def convert(
    run: Path,
    *,
    by: Literal["qcfs", "calibration"],
    time_steps: int,
    mode: Literal["light", "advanced"] = "light",
    part: Literal["test", "validation"] = "test",
    images: int | None = None,
) -> None:
    """Converts a trained network without spikes into a spiking one, and measures it at T = 1, 2, 4, ... time steps.

    Writes a table and a picture of accuracy and spikes against T to RUN/conversion-BY.

    Args:
        run: folder of a complete run: of a method of kind relu for calibration, of kind qcfs for qcfs.
        by: qcfs turns quantised activations into neurons, calibration any rectified linear units.
        time_steps: the largest T.
        mode: of calibration: light corrects biases, advanced the membranes at the start.
        part: of the data to measure on.
        images: of calibration: training images to calibrate on; 256 by default, or all where there are fewer.
    """
    from tracegrad.lab.report.conversion import convert_run

    conversion, folder = convert_run(run, by, time_steps, mode, part, images)
    console = _console()
    _show(console, conversion.table())
    _say(console, f"table and picture are in {folder}")


def report(runs: list[Path], output: Path | None = None, synapse: str | None = None) -> None:
    """Writes one HTML page on runs or whole studies, and its tables as Markdown and CSV.

    Args:
        runs: folders of runs or studies.
        output: of the page; report.html in the first folder by default.
        synapse: the one to show in pictures, by module name; one in the middle of the network by default.
    """
    from tracegrad.lab.report.writing import write_report

    page = write_report(runs, output or runs[0] / REPORT, synapse)
    sys.stdout.write(f"the report is {page}\n")


def export(run: Path, output: Path | None = None, to: Literal["safetensors", "nir"] = "safetensors") -> None:
    """Writes a trained network for other libraries: its weights as safetensors, or itself as a NIR graph.

    NIR, the Neuromorphic Intermediate Representation, knows neurons that reset hard: train with
    --model.neuron.reset hard, and `pip install tracegrad[nir]`.

    Args:
        run: folder of a complete run, such as runs/NAME/METHOD/seed-0.
        output: of the file; weights.safetensors or network.nir in the run's folder by default.
        to: what to write.
    """
    from tracegrad.lab.export import export_run

    what = "network is" if to == "nir" else "weights are"
    sys.stdout.write(f"the {what} in {export_run(run, output, to)}\n")


def benchmark(
    sections: list[Literal["training", "large-batch", "inference", "growth", "memory", "energy"]] | None = None,
    rounds: int = 30,
    output: Path = RUNS / "benchmark",
    device: Literal["cpu", "cuda"] = "cpu",
    batch: int = 16,
    width: int = 64,
    image_size: int = 32,
    blocks: list[int] | None = None,
    rate: float | None = None,
    competitors: list[str] | None = None,
) -> None:
    """Measures training and inference beside other libraries and beside the convolutions alone.

    SpikingJelly, snnTorch and Norse take part where they are installed: `pip install tracegrad[benchmark]`.
    The network is ResNet20 with T = 4. All sections together take about an hour on two cores; those that the folder
    holds already are kept, so that an interrupted benchmark goes on: start it again.

    Args:
        sections: those to measure, such as [training,memory]; by default all that this machine can measure.
        rounds: how often each competitor is timed; once per round, in random order.
        output: folder of the results, tables and figures.
        device: where the networks run.
        batch: images per step; the section large-batch takes four times as many.
        width: channels of the network's first stage.
        image_size: height and width of the images.
        blocks: of each stage, such as [1,1,1]; by default [3,3,3].
        rate: set all thresholds so that the mean firing rate is this, such as 0.165; by default that of fresh networks.
        competitors: patterns of their names, such as ["tracegrad, bf16", "SpikingJelly*"]; by default all.
    """
    try:
        from tracegrad_benchmark.run import run_benchmark
        from tracegrad_benchmark.workload import Workload
    except ModuleNotFoundError as error:
        if error.name != "tracegrad_benchmark":
            raise
        raise ValueError("the benchmark is in tracegrad's repository, folder benchmarks, not in the package") from None

    console = _console()
    workload = Workload(batch, width, image_size, blocks=tuple(blocks or (3, 3, 3)), rate=rate, device=device)
    _show(console, *run_benchmark(workload, sections, competitors, rounds, output, console))
    _say(console, f"tables and figures are in {output}")


def recipes(show: str | None = None) -> None:
    """Lists the recipes that come with tracegrad.

    Args:
        show: print this recipe instead, to read it or to make one of your own: `--show digits > mine.yaml`.
    """
    if show:
        sys.stdout.write(find_recipe(show).read_text(encoding="utf-8"))
        return
    names = shipped_recipes()
    width = max(map(len, names))
    for name in names:
        sys.stdout.write(f"{name:<{width}}  {load_recipe(name).description}\n")


def _console() -> Console:
    """A console that shows names and paths as they are, whatever could be read into them."""
    return Console(markup=False, emoji=False, highlight=False)


def _say(console: Console, what: Any) -> None:
    console.print(what, soft_wrap=True)


def _show(console: Console, *tables: Table) -> None:
    for table in tables:
        console.print()
        _say(console, table.rich() if console.is_terminal else table.markdown())


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "study": study,
    "evaluate": evaluate,
    "diagnose": diagnose,
    "convert": convert,
    "report": report,
    "export": export,
    "benchmark": benchmark,
    "recipes": recipes,
}
