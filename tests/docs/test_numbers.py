"""The numbers in the documentation are those of the files that they are taken from."""

import csv
import re
import runpy
from pathlib import Path

import pytest
from scipy import stats

from tracegrad.lab.report.comparing import difference
from tracegrad.lab.report.paper import reported_results
from tracegrad.lab.report.quantities import ACCURACY
from tracegrad.lab.studies.collect import collect
from tracegrad.lab.studies.statistics import Difference

ROOT = Path(__file__).parents[2]
REPRODUCE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")


def test_the_papers_tables_are_the_papers():
    rows = {(row.table, row.architecture, row.reset, row.method): row for row in reported_results()}
    shown = re.split(r"^\| Table (\d)", REPRODUCE, flags=re.MULTILINE)
    checked = 0
    for table, text in zip(shown[1::2], shown[2::2], strict=True):
        for network, reset, *numbers in re.findall(
            r"^\| (ResNet\d+), (\w+) \|" + r" ([\d.]+) \|" * 4, text, re.MULTILINE
        ):
            pair = [rows[int(table), network.lower(), reset, method] for method in ("baseline", "gradient-scale")]
            expected = [row.accuracy_mean for row in pair] + [row.spikes_mean for row in pair]
            assert [float(number) for number in numbers] == expected, f"Table {table}, {network}, {reset}"
            checked += 1
    assert checked == 8


@pytest.mark.parametrize("study", ["digits", "fashion-mnist"])
def test_differences_are_those_of_results(study):
    with (ROOT / "results" / study / "differences.csv").open(encoding="utf-8") as file:
        _, *expected = next(csv.DictReader(file)).values()
    line = next(line for line in REPRODUCE.splitlines() if line.startswith(f"| `{study}`"))
    shown = [float(number.replace("−", "-")) for number in re.findall(r"[−+]?\d+\.\d\d", line)]
    assert shown[:6] == [float(value) for value in expected[:6]], f"docs/reproduce.md and results/{study} differ"


HELP = (ROOT / "docs" / "does-it-help.md").read_text(encoding="utf-8")


def cells_of(page, start):
    """The cells of the lines of a table that begin so."""
    lines = (line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [[cell.strip() for cell in line.strip("|").split("|")[1:]] for line in lines]


def arms(file, **which):
    with (ROOT / "results" / "claim" / "stage-0" / file).open(encoding="utf-8") as rows:
        return {
            (row["data"], row["variation"]): row
            for row in csv.DictReader(rows)
            if all(row[name] == value for name, value in which.items())
        }


def test_what_scaling_changes_is_what_stage_0_found():
    paper = {"apply": "outside", "relation": "positive", "normalize": "max", "time": "per_step"}
    inside = {"apply": "event", "relation": "positive"}
    read = {
        "counts": lambda row: f"{100 - 100 * float(row['relation_timing']):.1f}",
        "angle": lambda row: f"{float(row['angle']):.2f}",
        "timing": lambda row: f"{100 * float(row['change_timing']):.1f}",
    }
    shown = {
        "share of R that spike counts explain (%)": ("counts", paper, "0.1"),
        "angle by which the paper's rule turns the gradient of the median filter (degrees)": ("angle", paper, "0.1"),
        "the same at alpha 0.5 (degrees)": ("angle", paper, "0.5"),
        "share of that change which is timing, not counts (%)": ("timing", paper, "0.1"),
        "the same with the relation inside the sum (%)": ("timing", inside, "0.1"),
        "the same with `coincidence` inside the sum (%)": ("timing", {**inside, "relation": "coincidence"}, "0.1"),
    }
    for line, (number, rule, alpha) in shown.items():
        rows = arms("arms.csv", **rule, alpha=alpha)
        expected = [read[number](rows[data, "as it is"]) for data in ("cifar10", "moving")]
        assert cells_of(HELP, line) == [expected], f"docs/does-it-help.md and results/claim/stage-0 differ: {line}"
    lines = {
        "reset not differentiated": "detach_reset",
        "surrogate half as wide": "surrogate width 0.25",
        "surrogate twice as wide": "surrogate width 1",
        "traces that decay by 0.7 a step": "decay 0.7",
        "traces that decay by 0.9 a step": "decay 0.9",
    }
    rows = arms("arms.csv", **paper, alpha="0.1") | arms("variations.csv", **paper, alpha="0.1")
    for name in ("as it is", "hard reset", *lines, "T = 4", "T = 8", "T = 16"):
        found = [rows.get((data, lines.get(name, name))) for data in ("cifar10", "moving")]
        expected = [read[number](row) if row else "–" for row in found for number in ("angle", "timing")]
        assert cells_of(HELP, name) == [expected], f"docs/does-it-help.md and results/claim/stage-0 differ: {name}"


def test_how_many_arms_stay_is_what_stage_0_found():
    table = (ROOT / "results" / "claim" / "stage-0" / "table.md").read_text(encoding="utf-8")
    (every, cifar10), (same, moving) = re.findall(r"Of (\d+) arms, (\d+) stay", table)
    assert every == same
    assert f"Of {every} rules and strengths, {cifar10} on CIFAR-10 and {moving} on `moving`" in HELP


@pytest.mark.parametrize("study", ["digits", "fashion-mnist"])
def test_what_was_seen_and_could_be_seen_is_that_of_results(study):
    with (ROOT / "results" / study / "differences.csv").open(encoding="utf-8") as file:
        _, *row = next(csv.DictReader(file)).values()
    mean, low, high, *spikes = map(float, row[:6])
    ((seeds, *shown, seen),) = cells_of(HELP, {"digits": "digits", "fashion-mnist": "Fashion-MNIST"}[study])
    numbers = [float(number.replace("−", "-")) for number in re.findall(r"[−+]\d+\.\d\d", " ".join(shown))]
    assert numbers == [mean, low, high, *spikes], f"docs/does-it-help.md and results/{study} differ"
    pairs = int(seeds)
    deviation = (high - low) / 2 * pairs**0.5 / float(stats.t.ppf(0.975, pairs - 1))
    assert seen == f"{Difference(mean, low, high, pairs, deviation=deviation).smallest_seen:.2f}"


RULES = {
    "`lift`: rates divided out": "lift",
    "the paper's, alpha 0.1": "gradient-scale",
    "`lift` of two traces from the pre-synaptic end": "pre-pre-lift",
    "`coincidence` inside the sum": "coincidence-event",
    "the paper's, alpha 0.5": "strong",
    "the paper's relation inside the sum": "event",
    "`stdp`: signed": "stdp",
    "placebo: alpha $10^{-6}$": "placebo",
}


def test_what_rules_did_in_stage_a_is_what_ranks_them():
    with (ROOT / "results" / "claim" / "stage-a" / "ranks.csv").open(encoding="utf-8") as file:
        ranks = {row["Arm"]: row for row in csv.DictReader(file)}
    assert list(RULES.values()) == list(ranks), "docs/does-it-help.md has rules in another order"
    for line, arm in RULES.items():
        row = ranks[arm]
        expected = [row["Score"]]
        for data in ("fashion-mnist", "moving"):
            assert row[f"{data}: seeds"] == "10"
            points, spread = row[f"{data}: validation (points)"], row[f"{data}: ± of a pair"]
            expected += [f"{points} ± {spread}", row[f"{data}: spikes (K)"]]
        shown = [[cell.replace("−", "-") for cell in cells] for cells in cells_of(HELP, line)]
        assert shown == [expected], f"docs/does-it-help.md and results/claim/stage-a differ: {line}"
    spreads = (ranks["placebo"][f"{data}: ± of a pair"] for data in ("fashion-mnist", "moving"))
    assert "spread by {} points on Fashion-MNIST and by {} on `moving`".format(*spreads) in HELP


def test_the_claims_plan_has_the_noise_of_stage_a():
    plan = " ".join((ROOT / "studies" / "claim" / "README.md").read_text(encoding="utf-8").split())
    spreads: dict[tuple[str, str], float] = {}
    for data in ("fashion-mnist", "moving"):
        (study,) = collect([ROOT / "results" / "claim" / "stage-a" / data])
        for method, pairs in study.against_baseline().items():
            spreads[data, method] = difference(pairs, ACCURACY).deviation
    placebo = spreads["fashion-mnist", "placebo"]
    assert (
        f"{placebo:.2f} points of test accuracy on Fashion-MNIST and {spreads['moving', 'placebo']:.2f} on `moving`"
        in plan
    )
    arms = [spreads["fashion-mnist", arm] for arm in ("gradient-scale", "lift", "coincidence-event")]
    assert f"spread by {min(arms):.2f} to {max(arms):.2f} on Fashion-MNIST" in plan

    def seen(seeds: int, *deviations: float) -> str:
        return " to ".join(f"{Difference(0, 0, 0, seeds, deviation=each).smallest_seen:.2f}" for each in deviations)

    ends = min(arms), max(arms)
    assert f"12 seeds see {seen(12, placebo)} points" in plan
    assert f"with the arms' {seen(12, *ends)}, and 40 seeds {seen(40, *ends)}" in plan


def test_rivals_are_those_of_results():
    with (ROOT / "results" / "rivals-fashion-mnist" / "table.csv").open(encoding="utf-8") as file:
        rows = {row["Method"]: row for row in csv.DictReader(file)}
    columns = "T", "Accuracy (%) mean", "Source (%)", "Spikes (K)", "Energy (µJ)"
    for method, row in rows.items():
        time_steps, mean, *others = (row[column] for column in columns)
        cells = (f"`{method}`", time_steps, f"{mean} ± {row['± std']}", *others)
        assert f"\n| {' | '.join(cells)} |\n" in REPRODUCE, f"docs/reproduce.md and the results differ on {method}"
    assert len(rows) == 13


def test_strength_of_the_effect_is_that_of_the_report():
    with (ROOT / "results" / "fashion-mnist" / "report-fashion-mnist-relations.csv").open(encoding="utf-8") as file:
        scales = [row for row in csv.DictReader(file) if row["Quantity"] == "scale"]
    means, lows, highs = ([float(row[name]) for row in scales] for name in ("mean", "5 %", "95 %"))
    page = " ".join((ROOT / "docs" / "method.md").read_text(encoding="utf-8").split())
    assert f"of the nine synapses is {min(means):.3f} to {max(means):.3f}" in page
    assert f"have a scale between {min(lows):.3f} and {max(highs):.3f}" in page
    assert len(scales) == 9


def test_speed_is_that_of_the_benchmarks():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("## In short")[2]
    tables = page.partition("## Results")[0].split("| --- | ---: |")[1:]
    assert len(tables) == 3
    for folder, table in zip(("benchmark", "benchmark-avx512", "benchmark-avx512-16.5"), tables, strict=True):
        rows = trained(folder)
        shown = re.findall(r"^\| ([^|]+, (?:bf16|float32)) \|" + r" ([\d.]+) \|" * 3, table, re.MULTILINE)
        for name, *numbers in shown:
            columns = ("images per second", 1), ("time / SpikingJelly", 2), ("time / convolutions", 2)
            expected = [f"{float(rows[name][column]):.{digits}f}" for column, digits in columns]
            assert numbers == expected, f"docs/performance.md and results/{folder} differ on {name}"
        assert len(shown) > 8


def test_what_scaling_costs_is_that_of_the_benchmarks():
    """Dense: of both runs with matrix tiles; over spikes: of both without."""
    page = " ".join((ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split())

    def cost(mode: str, *folders: str) -> str:
        costs = [
            100 * (float(trained(folder)[f"tracegrad, {mode}, bf16"]["time / tracegrad"]) - 1) for folder in folders
        ]
        return f"{min(costs):.0f} to {max(costs):.0f} %"

    spikes, dense = ("benchmark-avx512", "benchmark-avx512-16.5"), ("benchmark", "benchmark-16.5")
    assert f"With `final` it costs {cost('final', *spikes, *dense)} of a step" in page
    assert f"with `mean` {cost('mean', *spikes)} where it is summed over spikes and {cost('mean', *dense)}" in page
    assert f"with `per_step` {cost('per_step', *spikes)} and {cost('per_step', *dense)}." in page
    for folder, rate in zip(spikes, ("25 %", "16.5 %"), strict=True):
        rows = trained(folder)
        ratio = float(rows["tracegrad, float32"]["seconds"]) / float(rows["SpikingJelly, float32"]["seconds"])
        assert f"{ratio:.2f}" in page.partition("Float32 against float32")[2].partition(rate)[0][-60:]


DIAGNOSED = ("digits", "fashion-mnist", "moving")


def test_what_relations_are_made_of_is_that_of_the_diagnoses():
    rows = table_after("What the relation is made of")
    for row in rows:
        study, time, *shown = row
        (found,) = diagnosed(study, relation="positive", normalize="max", time=time, alpha="0.1", apply="outside")
        names = "relation_rank_one", "relation_other_image", "relation_counts", "reliability"
        digits = [3 if name == "relation_counts" else 2 for name in names]
        expected = [spread(found, name, f"{{:.{places}f}}") for name, places in zip(names, digits, strict=True)]
        assert shown == expected, f"{study}, {time}"
    assert [row[0] for row in rows] == [study for study in DIAGNOSED for _ in range(3)]


def test_what_rules_do_is_that_of_the_diagnoses():
    rows = table_after("What rules turn")
    for rule, *shown in rows:
        relation, normalize = rule.split(", ")
        apply, normalize = ("event", "mean") if normalize == "inside" else ("outside", normalize)
        names = {"relation": relation, "normalize": normalize, "time": "per_step", "apply": apply, "alpha": "0.1"}
        found = [one for study in DIAGNOSED for one in diagnosed(study, **names)]
        expected = [spread(one, "angle", "{:.1f}") for one in found]
        expected += [spread(one, "change_counts", "{:.0f}", lambda share: 100 * (1 - share)) for one in found]
        assert shown == expected, rule
    assert len(rows) == 12


def table_after(title: str) -> list[list[str]]:
    """The cells of a table of docs/which-information.md, without its head."""
    page = (ROOT / "docs" / "which-information.md").read_text(encoding="utf-8")
    lines = page.partition(f"**{title}**")[2].strip().split("\n\n")[1].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def diagnosed(study: str, **rule: str) -> list[dict[str, str]]:
    """The rows of a summary that are of a rule."""
    with (ROOT / "results" / "diagnosis" / study / "summary.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row[name] == value for name, value in rule.items())]


def spread(row: dict[str, str], name: str, form: str, of=lambda value: value) -> str:
    """A mean and its range."""
    mean, *ends = (of(float(row[key])) for key in (name, f"{name}_min", f"{name}_max"))
    return "{} ({} to {})".format(*(form.format(value + 0.0) for value in (mean, *sorted(ends))))


def test_inference_is_that_of_the_benchmarks():
    section = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("## Inference")[2]
    text, lines = " ".join(section.split()), section.partition("\n## ")[0].splitlines()
    folders = "benchmark-avx512", "benchmark-avx512-16.5", "benchmark", "benchmark-16.5"
    measured = [timed(folder, "inference") for folder in folders]
    shown = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| [^|]+(bf16|float32) \|", line)]
    for name, *cells in shown:
        for cell, rows, folder in zip(cells, measured, folders, strict=True):
            row = rows.get(name)
            images, ratio = (float(row[key]) for key in ("images per second", "time / convolutions")) if row else (0, 0)
            expected = f"{images:.1f} ({ratio:.2f})" if row else "–"
            assert cell == expected, f"docs/performance.md and results/{folder} differ on {name}"
    assert len(shown) == 10

    def ratio(folder: str, name: str = "tracegrad, bf16", to: str = "convolutions", section: str = "inference") -> str:
        return f"{float(timed(folder, section)[name][f'time / {to}']):.2f}"

    own = [ratio(folder, to="SpikingJelly") for folder in folders[:2]]
    assert f"{own[0]} (at 16.5 %: {own[1]}) of SpikingJelly's time" in text
    sizes = [ratio(f"benchmark-sizes/{name}") for name in ("batch-128", "one-thread", "batch-1")]
    assert f"128 images ({sizes[0]} of the convolutions' time at 25 %)" in text
    assert f"one thread ({sizes[1]}), not for one image: {sizes[2]} of the convolutions' time" in text
    small = [
        ratio(f"benchmark-sizes/{folder}", name, "tracegrad", "training")
        for folder, name in (
            ("small", "tracegrad, dense, bf16"),
            ("small", "SpikingJelly, bf16"),
            ("small-amx", "SpikingJelly, bf16"),
        )
    ]
    assert f"without tiles {small[0]} times as fast by spikes as by its dense way, {small[1]} times as fast as" in text
    assert f"with tiles {small[2]} times." in text


def test_time_to_the_end_is_that_of_results():
    page = " ".join((ROOT / "docs" / "events.md").read_text(encoding="utf-8").split())
    for recipe in ("fashion-mnist", "digits"):
        table = (ROOT / "results" / "wall-clock" / f"{recipe}.md").read_text(encoding="utf-8")
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", table.splitlines()[-1])]
        events, spread, dense, dense_spread = (f"{number:.1f}" for number in numbers[:4])
        ratio = f"{numbers[4]:.2f} ± {numbers[5]:.2f}"
        shown = page.partition(f"recipe `{recipe}`")[2].partition("accuracy" if recipe == "fashion-mnist" else "(`")[0]
        assert ratio in shown, f"docs/events.md and results/wall-clock/{recipe}.md differ"
        assert f"at {events} ± {spread} % instead of {dense} ± {dense_spread} %" in shown


def trained(folder: str) -> dict[str, dict[str, str]]:
    """The rows of a benchmark's training steps, by competitor."""
    return timed(folder, "training")


def timed(folder: str, section: str) -> dict[str, dict[str, str]]:
    """The rows of a section of a benchmark, by competitor."""
    with (ROOT / "results" / folder / "table.csv").open(encoding="utf-8") as file:
        return {row["competitor"]: row for row in csv.DictReader(file) if row["section"] == section}


def test_readme_gives_the_range_of_the_benchmark():
    rows = trained("benchmark")
    first, last = (
        float(rows[name]["time / SpikingJelly"]) for name in ("tracegrad, bf16", "tracegrad, per_step, bf16")
    )
    assert f"a step takes {first:.2f} to {last:.2f} of SpikingJelly's time" in (ROOT / "README.md").read_text("utf-8")


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 500


def test_hours_are_those_of_the_script():
    script = runpy.run_path(str(ROOT / "benchmarks" / "hours.py"))
    lines = script["table"](40)
    assert "\n".join(lines) in REPRODUCE
    studies = [float(line.split("|")[-2]) for line in lines[2:]]
    assert f"{4 * sum(studies):.0f} GPU hours" in REPRODUCE
    rate = script["measured"]("tracegrad, bf16")
    assert f"{rate:.1f} images a second, would take {45_000 * 300 / rate / 3600:.0f} hours" in " ".join(
        REPRODUCE.split()
    )
