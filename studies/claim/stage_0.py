"""Stage 0: which arms would change anything. Run it with `python studies/claim/stage_0.py FOLDER [DATA ...]`.

FOLDER holds trained networks, FOLDER/DATA/baseline/seed-N, of cifar10 and moving. `tracegrad.diagnose` looks at each as
it is and with one thing changed: its weights are read by other neurons, for other time steps, or by traces of another
decay; nothing is trained again. A diagnosis that is there already, in `diagnosis` beside the network, is kept, so that
what was interrupted goes on; two processes may take a data set each. FOLDER gets, as soon as there is one network:

- arms.csv: every arm, a rule with its alpha: its angle, its r^2 to the nearest arm that stays, and whether it stays;
- variations.csv: the same of the networks with one thing changed;
- table.md: the arms that stay, and why the others don't;
- environment-DATA.json: commit, command and machine of the latest diagnosis.

The rule, written before anything was measured: an arm is dropped if it turns the gradient of the median filter by
less than 2 degrees, or if its r^2 to an arm that stays is above 0.99. The paper's own stays. Numbers are means over the
networks. r^2 is that of the changes that two arms make (`Diagnosis.overlap`), as relations of two time modes, or
outside and inside the sum, can't be compared. It is taken between arms of the same alpha: another alpha makes the same
change, only larger. Of arms that do the same, the first one stays in the order of `_place`.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

import tracegrad as tg
from tracegrad.core.equations.trace import DECAY
from tracegrad.lab.data import Batches, load
from tracegrad.lab.files import write, write_rows
from tracegrad.lab.procedures.build import build_model
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.runs.isolation import isolated
from tracegrad.lab.runs.run import environment
from tracegrad.measure.diagnosis import DiagnosedRule
from tracegrad.measure.summary import Spread
from tracegrad.methods.objectives import OBJECTIVES

LEAST_ANGLE, MOST_R2 = 2.0, 0.99
DATA = ("cifar10", "moving")
RELATIONS = ("positive", "causal", "anticausal", "stdp", "coincidence", "pre_pre")
NORMALIZATIONS = ("max", "mean", "neuron", "none", "cosine", "centered", "lift")
TIMES = ("per_step", "mean", "final")
ALPHAS = (0.1, 0.5, 1.0)
BATCH = 64
MEASURED = ("angle", "angle_q05", "angle_q95", "relation_timing", "change_timing")
COLUMNS = (
    *("data", "variation", "networks", "apply", "relation", "normalize", "time", "alpha", *MEASURED),
    *("nearest", "r2", "stays", "why"),
)
load_once = cache(load)


class Arm(NamedTuple):
    """A rule and its strength."""

    rule: DiagnosedRule
    alpha: float

    def __str__(self) -> str:
        return f"{self.rule}, alpha {self.alpha:g}"


PAPER = Arm(DiagnosedRule("outside", "positive", "max", "per_step"), 0.1)


@dataclass(frozen=True)
class Variation:
    """One thing that is changed: the neurons, the number of time steps, or the decay of traces."""

    neuron: dict[str, Any] = field(default_factory=dict[str, Any])
    time_steps: int | None = None
    decay: float = DECAY


AS_IT_IS = "as it is"
VARIATIONS = {
    AS_IT_IS: Variation(),
    "hard reset": Variation({"reset": "hard"}),
    "detach_reset": Variation({"detach_reset": True}),
    "surrogate width 0.25": Variation({"surrogate": "boxcar_0.25"}),  # as it is, it is 0.5
    "surrogate width 1": Variation({"surrogate": "boxcar_1"}),
    "T = 4": Variation(time_steps=4),
    "T = 8": Variation(time_steps=8),
    "T = 16": Variation(time_steps=16),
    "decay 0.7": Variation(decay=0.7),  # as it is, it is exp(-1)
    "decay 0.9": Variation(decay=0.9),
}


def boxcar(width: float) -> Callable[[Tensor], Tensor]:
    """ds/du = 1 where |u - v_th| <= width, else 0."""
    return lambda distance: (distance.abs() <= width).to(distance.dtype)


for _width in (0.25, 1.0):
    tg.register_surrogate(f"boxcar_{_width:g}")(boxcar(_width))


class Seen(NamedTuple):
    """What was found of one network: by arm the numbers of `MEASURED`, by two rules their r^2."""

    arms: dict[Arm, Sequence[float]]
    r2: dict[tuple[DiagnosedRule, DiagnosedRule], float]


def look_at(folder: Path, variation: Variation) -> Seen:
    """Diagnoses a network with one thing changed, on images of its training part."""
    trained = TrainedRun.read(folder)
    setting, seed = trained.run.setting, trained.run.seed
    steps = variation.time_steps or setting.model.time_steps
    options = setting.data.options if trained.task.time_steps is None else {**setting.data.options, "frames": steps}
    dataset = load_once(replace(setting.data, options=options))
    neuron = replace(setting.model.neuron, **variation.neuron)
    with isolated(seed, 1):
        network = build_model(
            replace(setting.model, time_steps=steps, neuron=neuron), len(dataset.classes), dataset.channels
        )
        network.load_state_dict(trained.weights)
        found = tg.diagnose(
            network,
            [next(iter(Batches(dataset.train, BATCH, dataset=dataset, seed=seed, shuffle=True)))],
            loss=OBJECTIVES[setting.objective],
            relations=RELATIONS,
            normalizations=NORMALIZATIONS,
            alphas=ALPHAS,
            decay=variation.decay,
        )
    arms: dict[Arm, Sequence[float]] = {}
    for each in found.overall:
        timing = (1 - share["counts"] for share in (each.of_relation, each.of_change))
        arms[Arm(each.rule, each.alpha)] = (each.angle, *each.angle_range, *timing)
    return Seen(arms, found.overlap)


def seen_of(folder: Path, name: str) -> Seen:
    """What was found of a network, from its file if there is one."""
    file = folder / "diagnosis" / f"{name}.json"
    if not file.is_file():
        seen = look_at(folder, VARIATIONS[name])
        arms = [(*_words(arm.rule), arm.alpha, *numbers) for arm, numbers in seen.arms.items()]
        r2 = [(*_words(a), *_words(b), value) for (a, b), value in seen.r2.items()]
        write(file, json.dumps({"arms": _rounded(arms), "r2": _rounded(r2)}))
    found = json.loads(file.read_text())
    arms = {Arm(DiagnosedRule(*row[:4]), row[4]): row[5:] for row in found["arms"]}
    return Seen(arms, {(DiagnosedRule(*row[:4]), DiagnosedRule(*row[4:8])): row[8] for row in found["r2"]})


def _words(rule: DiagnosedRule) -> tuple[str, ...]:
    return rule.apply, rule.relation, rule.normalize, rule.time


def _rounded(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [[float(f"{cell:.6g}") if isinstance(cell, float) else cell for cell in row] for row in rows]


def mean_of(networks: Sequence[Seen]) -> Seen:
    """The means over networks of what is known; NaN where nothing is."""
    arms = {
        arm: [Spread.of(values).mean for values in zip(*(each.arms[arm] for each in networks), strict=True)]
        for arm in networks[0].arms
    }
    return Seen(arms, {pair: Spread.of(each.r2[pair] for each in networks).mean for pair in networks[0].r2})


def _place(arm: Arm) -> tuple[int, ...]:
    """The paper's arm, then the simplest ones: outside, its time mode, its normalisation, its relation."""
    rule = arm.rule
    normalize = NORMALIZATIONS.index(rule.normalize)
    return (
        *(arm != PAPER, rule.apply == "event", TIMES.index(rule.time), normalize, RELATIONS.index(rule.relation)),
        ALPHAS.index(arm.alpha),
    )


class Verdict(NamedTuple):
    """Of an arm: the nearest arm that stays, r^2 between them, whether it stays, and why."""

    nearest: Arm | None
    r2: float
    stays: bool
    why: str


def judge(seen: Seen) -> dict[Arm, Verdict]:
    """The rule: see the top of this file."""

    def r2(a: Arm, b: Arm) -> float:
        found = seen.r2.get((a.rule, b.rule), seen.r2.get((b.rule, a.rule), math.nan))
        return 0.0 if math.isnan(found) else found

    def nearest(arm: Arm) -> tuple[Arm | None, float]:
        others = [other for other in staying if other.alpha == arm.alpha and other != arm]
        return max(((other, r2(arm, other)) for other in others), key=lambda each: each[1], default=(None, 0.0))

    staying: list[Arm] = []
    reasons: dict[Arm, str] = {}
    for arm in sorted(seen.arms, key=_place):
        other, share = nearest(arm)
        if arm == PAPER:
            reasons[arm] = "the paper's"
            staying.append(arm)
        elif not seen.arms[arm][0] >= LEAST_ANGLE:
            reasons[arm] = f"under {LEAST_ANGLE:g} degrees"
        elif share > MOST_R2:
            reasons[arm] = f"does the same as {other}"
        else:
            reasons[arm] = "does something of its own"
            staying.append(arm)
    return {arm: Verdict(*nearest(arm), arm in staying, reasons[arm]) for arm in seen.arms}


def rows_of(data: str, variation: str, networks: int, seen: Seen) -> list[dict[str, Any]]:
    """A row for each arm."""
    rows: list[dict[str, Any]] = []
    for arm, verdict in judge(seen).items():
        names = (data, variation, networks, *_words(arm.rule), f"{arm.alpha:g}")
        numbers = ("" if math.isnan(value) else f"{value:.4g}" for value in seen.arms[arm])
        stays = "yes" if verdict.stays else "no"
        cells = (*names, *numbers, verdict.nearest or "", f"{verdict.r2:.4f}", stays, verdict.why)
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The arms that stay, of each data set; then how many do with one thing changed."""
    text = ["# Stage 0: which arms would change anything", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data and row["variation"] == AS_IT_IS]
        staying = sorted((row for row in mine if row["stays"] == "yes"), key=lambda row: _place(_arm(row)))
        why = [row["why"].partition(" as ")[0] for row in mine if row["stays"] == "no"]
        counted = " and ".join(f"{why.count(each)} that are {each}" for each in sorted(set(why)))
        counted = counted.replace("are does the same", "do the same as another one")
        text += [f"## {data}", "", f"Of {len(mine)} arms, {len(staying)} stay, without {counted}.", ""]
        text += ["| arm | angle (degrees) | of filters | timing in its change (%) | nearest | r² |", "|" + " --- |" * 6]
        for row in staying:
            spread = f"{row['angle_q05']} to {row['angle_q95']}"
            cells = (row["angle"], spread, _percent(row["change_timing"]), row["nearest"] or "–", row["r2"])
            text.append(f"| {_arm(row)} | {' | '.join(map(str, cells))} |")
        text += ["", "| one thing changed | networks | the paper's angle | timing in its change (%) | arms that stay |"]
        text += ["|" + " --- |" * 5]
        for name in dict.fromkeys(row["variation"] for row in rows if row["data"] == data):
            there = [row for row in rows if (row["data"], row["variation"]) == (data, name)]
            paper = next(row for row in there if _arm(row) == PAPER)
            count = sum(row["stays"] == "yes" for row in there)
            cells = (paper["networks"], paper["angle"], _percent(paper["change_timing"]), count)
            text.append(f"| {name} | {' | '.join(map(str, cells))} |")
        text.append("")
    return "\n".join(text)


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f}" if share else "–"


def _arm(row: dict[str, Any]) -> Arm:
    return Arm(DiagnosedRule(*(row[name] for name in ("apply", "relation", "normalize", "time"))), float(row["alpha"]))


def write_tables(folder: Path) -> None:
    """Writes what is known so far of all data sets."""
    rows: list[dict[str, Any]] = []
    for data in DATA:
        for name in VARIATIONS:
            runs = sorted(path.parents[1] for path in folder.glob(f"{data}/baseline/seed-*/diagnosis/{name}.json"))
            if runs:
                rows += rows_of(data, name, len(runs), mean_of([seen_of(run, name) for run in runs]))
    write_rows(folder / "arms.csv", COLUMNS, [row for row in rows if row["variation"] == AS_IT_IS])
    write_rows(folder / "variations.csv", COLUMNS, [row for row in rows if row["variation"] != AS_IT_IS])
    write(folder / "table.md", markdown(rows))


def main(folder: Path, data: Sequence[str]) -> None:
    """Looks at all networks that are there, first as they are, and writes tables after each."""
    for name, variation in VARIATIONS.items():
        for each in data:
            for run in sorted(folder.glob(f"{each}/baseline/seed-*")):
                if not (run / "result.json").is_file():
                    continue
                if variation.time_steps == TrainedRun.read(run).time_steps:
                    continue  # as it is
                if not (run / "diagnosis" / f"{name}.json").is_file():
                    seen_of(run, name)
                    write(folder / f"environment-{each}.json", json.dumps(environment(), indent=2) + "\n")
                    print(f"{each}, {run.name}, {name}", flush=True)
                    write_tables(folder)
    write_tables(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or DATA)
