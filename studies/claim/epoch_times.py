"""What an epoch takes: run it with `python studies/claim/epoch_times.py FILE RECIPE [METHOD ...]`.

Of each method, by default of all, it takes the CPU time of `STEPS` training steps and of some validation on one thread,
and makes an epoch of them. CPU time leaves out pauses and what other processes take, but not what these do to caches.
FILE gets a CSV row for each; what is there already is kept. Compiling is not counted: once a run, about 20 s.
"""

import csv
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tracegrad.events.library import machine_instruction_set
from tracegrad.lab.data import load
from tracegrad.lab.files import write_rows
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.build import Task
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.runs.isolation import isolated, quiet
from tracegrad.lab.runs.memory import keep_freed_memory
from tracegrad.lab.runs.run import Run, commit
from tracegrad.lab.train import Moment

WARM_UP, STEPS, VALIDATED = 10, 40, 20  # steps, steps, batches
COLUMNS = ("recipe", "method", "images", "seconds", "instruction set", "commit")


class StoppedError(Exception):
    """The steps are done."""


def epoch_seconds(run: Run) -> float:
    """CPU seconds of an epoch of training and the validation after it."""
    dataset, training, procedure = load(run.setting.data), run.setting.training, procedure_of(run.method)
    seen: list[float] = []

    def watch(_: Moment) -> None:
        seen.append(time.process_time())
        if len(seen) > WARM_UP + STEPS:
            raise StoppedError

    with isolated(run.seed, 1), quiet():
        try:
            procedure.fit(run, dataset, watch)
        except StoppedError:
            step = (seen[-1] - seen[WARM_UP]) / STEPS
        network = procedure.build(run, Task.of(dataset)).eval()
        begun = time.process_time()
        some = dataset.validation.take(torch.arange(min(VALIDATED * training.batch_size, len(dataset.validation))))
        procedure.evaluate(run, network, some, dataset)
        image = (time.process_time() - begun) / len(some)
    return math.ceil(len(dataset.train) / training.batch_size) * step + len(dataset.validation) * image


def main(file: Path, name: str, methods: Sequence[str]) -> None:
    """Measures what is not yet in the file."""
    keep_freed_memory()  # as trainings do
    rows = list(csv.DictReader(file.open())) if file.is_file() else []
    recipe = load_recipe(name)
    for method in methods or recipe.methods:
        key = {"recipe": recipe.name, "method": method, "instruction set": machine_instruction_set()}
        if any(key.items() <= row.items() for row in rows):
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), recipe.only(method, recipe.seeds[0]))
            seconds = f"{epoch_seconds(run):.1f}"
        images = str(len(load(run.setting.data).train))
        rows.append({**key, "images": images, "seconds": seconds, "commit": commit() or ""})
        print(rows[-1], flush=True)
        write_rows(file, COLUMNS, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
