"""The command line: `tracegrad VERB`. A verb is a function; its signature gives the options."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Container, Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from inspect import Parameter, getdoc, signature
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionYesNo, ArgumentParser
from rich.console import Console

from tracegrad.lab.parsing import (
    add_fields,
    find_recipe,
    load_recipe,
    method_help,
    parse,
    parse_recipe,
    shipped_recipes,
)
from tracegrad.lab.recipe import Recipe
from tracegrad.lab.table import Table

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
        method: one of the recipe's methods; by default the first that scales gradients.
        seed: seed of the initial weights and the order of data; by default the recipe's first.
        output: folder of the study; the run goes to METHOD/seed-N in it. By default runs/NAME.
        resume: go on with an interrupted run; otherwise begin it again.
    """
    from tracegrad.lab.runs import plan
    from tracegrad.lab.study import run_all

    method = method or next((name for name, options in recipe.methods.items() if options.alpha), recipe.baseline)
    single = recipe.only(str(method), recipe.seeds[0] if seed is None else seed)
    (run,) = plan(single, output or RUNS / recipe.name)
    console = Console()
    run_all([run], console, resume)
    console.print(f"everything about this run is in {run.folder}", soft_wrap=True, highlight=False)


def study(recipe: Recipe, output: Path | None = None) -> None:
    """Trains every method of a recipe with every seed, and compares them in a table and a figure.

    Complete runs are kept and an interrupted one goes on: to go on with a study, start it again.

    Args:
        recipe: the recipe.
        output: folder of the study. By default runs/NAME.
    """
    from tracegrad.lab.report import write_report
    from tracegrad.lab.study import run_study

    console = Console()
    finished = run_study(recipe, output or RUNS / recipe.name, console)
    page = write_report([finished.folder], finished.folder / REPORT)
    _show(console, *filter(None, (finished.methods, finished.differences)))
    console.print(f"tables and figures are in {finished.folder}; open {page}", soft_wrap=True, highlight=False)


def evaluate(run: Path, part: Literal["test", "validation"] = "test", time_steps: list[int] | None = None) -> None:
    """Measures a trained network at every number of time steps, layer by layer and class by class.

    Writes tables and pictures to RUN/evaluation.

    Args:
        run: folder of a complete run, such as runs/NAME/METHOD/seed-0.
        part: of the data.
        time_steps: numbers of time steps to measure at, besides the trained one; from 1 to twice that by default.
    """
    from tracegrad.lab.evaluation.run import evaluate_run

    console = Console()
    _show(console, *evaluate_run(run, part, time_steps).tables())
    console.print(f"tables and pictures are in {run / 'evaluation'}", soft_wrap=True, highlight=False)


def convert(
    run: Path,
    *,
    method: Literal["qcfs", "calibration"],
    time_steps: int,
    mode: Literal["light", "advanced"] = "light",
    part: Literal["test", "validation"] = "test",
) -> None:
    """Converts a trained network without spikes into a spiking one, and measures it at T = 1, 2, 4, ... time steps.

    Writes a table and a picture of accuracy and spikes against T to RUN/conversion-METHOD.

    Args:
        run: folder of a complete run: of a method of kind relu for calibration, of kind qcfs for qcfs.
        method: qcfs turns quantised activations into neurons, calibration any rectified linear units.
        time_steps: the largest T.
        mode: of calibration: light corrects biases, advanced the membranes at the start.
        part: of the data to measure on.
    """
    from tracegrad.lab.conversion import convert_run

    conversion, folder = convert_run(run, method, time_steps, mode, part)
    console = Console()
    _show(console, conversion.table())
    console.print(f"table and picture are in {folder}", soft_wrap=True, highlight=False)


def report(runs: list[Path], output: Path | None = None, synapse: str | None = None) -> None:
    """Writes one HTML page on runs or whole studies, and its tables as Markdown and CSV.

    Args:
        runs: folders of runs or studies.
        output: of the page; report.html in the first folder by default.
        synapse: the one to show in pictures, by module name; one in the middle of the network by default.
    """
    from tracegrad.lab.report import write_report

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
    sections: list[Literal["training", "large-batch", "inference", "growth", "memory"]] | None = None,
    rounds: int = 30,
    output: Path = RUNS / "benchmark",
    device: Literal["cpu", "cuda"] = "cpu",
    batch: int = 16,
    width: int = 64,
    image_size: int = 32,
) -> None:
    """Measures training and inference beside other libraries and beside the convolutions alone.

    SpikingJelly, snnTorch and Norse take part where they are installed: `pip install tracegrad[benchmark]`.
    The network is ResNet20 with T = 4. All sections together take about an hour on two cores; those that the folder
    holds already are kept, so that an interrupted benchmark goes on: start it again.

    Args:
        sections: those to measure, such as [training,memory]; by default all.
        rounds: how often each contestant is timed; once per round, in random order.
        output: folder of the results, tables and figures.
        device: where the networks run.
        batch: images per step; the section large-batch takes four times as many.
        width: channels of the network's first stage.
        image_size: height and width of the images.
    """
    from tracegrad.lab.benchmark.run import run_benchmark
    from tracegrad.lab.benchmark.workload import Workload

    console = Console()
    workload = Workload(batch, width, image_size, device=device)
    _show(console, *run_benchmark(workload, sections, rounds, output, console))
    console.print(f"tables and figures are in {output}", soft_wrap=True, highlight=False)


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


def _show(console: Console, *tables: Table) -> None:
    for table in tables:
        console.print()
        console.print(table.rich() if console.is_terminal else table.markdown(), soft_wrap=True, highlight=False)


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "study": study,
    "evaluate": evaluate,
    "convert": convert,
    "report": report,
    "export": export,
    "benchmark": benchmark,
    "recipes": recipes,
}
ON_A_RECIPE = {"train", "study"}

# Arguments that do not follow from a signature alone.
ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "recipe": ("recipe", {"help": "a shipped recipe (`tracegrad recipes` lists them) or the path of a YAML file"}),
    "runs": ("runs", {"nargs": "+", "type": Path, "help": "folders of runs or studies"}),
    "resume": (
        "--resume",
        {
            "action": ActionYesNo(no_prefix="no-"),
            "default": True,
            "help": "go on with an interrupted run after the last epoch that it finished; --no-resume begins it again",
        },
    ),
}

HELP_NOTE = """\
Fields are the recipe's; options override them. A default holds where neither says otherwise.
Print a recipe with `tracegrad recipes --show NAME`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Returns:
        The exit code: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in arguments
    received: list[int] = []
    try:
        with _terminable(received):
            _run([argument for argument in arguments if argument != "--traceback"])
            sys.stdout.flush()
    except BrokenPipeError:  # who reads our output has seen enough: `tracegrad recipes | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        where = f" ({interrupt})" if str(interrupt) else ""
        command = shlex.join(["tracegrad", *(each for each in arguments if each != "--no-resume")])
        sys.stderr.write(f"tracegrad: interrupted{where}; go on with: {command}\n")
        return 128 + (received[0] if received else signal.SIGINT)
    except Exception as error:
        if traceback:
            raise
        bad_input = isinstance(error, ValueError | TypeError | OSError)
        message = " ".join(str(error).split()) or type(error).__name__
        hint = "" if bad_input else " (--traceback shows where)"
        sys.stderr.write(f"tracegrad: error: {message}{hint}\n")
        return 2 if bad_input else 1
    return 0


@contextmanager
def _terminable(received: list[int]) -> Generator[None]:
    """Makes SIGTERM interrupt a block as Ctrl-C does, and notes it in `received`."""

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one can set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
    elif arguments[0] == "--version":
        sys.stdout.write(f"tracegrad {version('tracegrad')}\n")
    elif arguments[0] not in VERBS:
        raise ValueError(f"unknown verb {arguments[0]!r}; there are {', '.join(VERBS)}")
    else:
        _run_verb(arguments[0], arguments[1:])


def _run_verb(verb: str, arguments: list[str]) -> None:
    function = VERBS[verb]
    description = (getdoc(function) or "").partition("\nArgs:")[0]
    parser = ArgumentParser(prog=f"tracegrad {verb}", description=description, exit_on_error=False, allow_abbrev=False)
    on_a_recipe = verb in ON_A_RECIPE
    for name, (flag, options) in ARGUMENTS.items():
        if name in signature(function).parameters:
            parser.add_argument(flag, **options)
    named = {name for name, each in signature(function).parameters.items() if each.kind is Parameter.KEYWORD_ONLY}
    others = signature(function).parameters.keys() - named
    for skipped, positional in ((named, not on_a_recipe), (others, False)):
        parser.add_function_arguments(function, as_group=False, as_positional=positional, skip={*ARGUMENTS, *skipped})
    arguments = [_underscored(argument, signature(function).parameters) for argument in arguments]
    if not on_a_recipe:
        function(**parse(parser, arguments).as_dict())
        return
    parser.usage = f"tracegrad {verb} RECIPE [options] [--FIELD VALUE ...]"
    add_fields(parser)
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"{parser.format_help()}\n{method_help()}\n{HELP_NOTE}")
        return
    recipe, options = parse_recipe(parser, arguments)
    function(recipe, **options)


def _underscored(argument: str, known: Container[str]) -> str:
    """An option of a verb by its parameter's name: --time-steps is --time_steps."""
    option, equals, value = argument.partition("=")
    name = option.removeprefix("--").replace("-", "_")
    return f"--{name}{equals}{value}" if option.startswith("--") and name in known else argument


def _overview() -> str:
    lines = [f"  {verb:<9} {(getdoc(function) or '').splitlines()[0]}" for verb, function in VERBS.items()]
    return "\n".join(
        [
            "usage: tracegrad VERB ...",
            "",
            "Trains deep spiking neural networks with gradients scaled by local spike information.",
            "",
            "verbs:",
            *lines,
            "",
            "options:",
            "  --help, --version",
            "  --traceback   where an error comes from, after any verb",
            "",
            "Begin with `tracegrad study digits`; `tracegrad VERB --help` says more.",
            "",
        ]
    )
