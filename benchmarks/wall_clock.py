"""Training with and without event kernels to the end: run it with `python benchmarks/wall_clock.py RECIPE FOLDER`.

Each of five seeds is trained with the event kernels and with dense convolutions alone, both at once with one thread
each, so that whatever else the machine does slows both; FOLDER gets the runs and wall-clock.md: accuracy and seconds of
each, and the mean of the paired ratios. Further arguments are fields of the recipe, such as `--data.root FOLDER`.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SEEDS = range(5)
WAYS = {"events": "auto", "dense": "0"}


def train(recipe: str, folder: Path, seed: int, fields: list[str]) -> dict[str, dict[str, Any]]:
    """The results of one seed by way; runs that are complete are kept."""
    command = [sys.executable, "-m", "tracegrad", "train", recipe, "--method", "baseline", f"--seed={seed}"]
    processes = {
        way: subprocess.Popen(
            [*command, f"--output={folder / way}", "--training.threads=1", *fields],
            env=os.environ | {"TRACEGRAD_EVENTS": events},
        )
        for way, events in WAYS.items()
    }
    if failed := [way for way, process in processes.items() if process.wait()]:
        raise SystemExit(f"failed: the run with {' and that with '.join(failed)}")
    runs = {way: folder / way / "baseline" / f"seed-{seed}" / "result.json" for way in WAYS}
    return {way: json.loads(path.read_text(encoding="utf-8")) for way, path in runs.items()}


def main() -> None:
    """Trains, and writes the table."""
    recipe, folder, fields = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    rows = ["| seed | accuracy, events (%) | accuracy, dense (%) | s, events | s, dense |", "|---|---|---|---|---|"]
    accuracies: dict[str, list[float]] = {way: [] for way in WAYS}
    ratios: list[float] = []
    for seed in SEEDS:
        results = train(recipe, folder, seed, fields)
        for way, result in results.items():
            accuracies[way].append(100 * result["test_accuracy"])
        ratios.append(results["events"]["seconds"] / results["dense"]["seconds"])
        cells = [f"{accuracies[way][-1]:.2f}" for way in WAYS] + [f"{results[way]['seconds']:.0f}" for way in WAYS]
        rows.append(f"| {seed} | {' | '.join(cells)} |")
    means = [f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in accuracies.values()]
    rows.append(
        f"| mean | {' | '.join(means)} | ratio {statistics.mean(ratios):.2f} ± {statistics.stdev(ratios):.2f} | |"
    )
    (folder / "wall-clock.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
