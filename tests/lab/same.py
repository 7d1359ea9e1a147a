import csv
import json

import torch

from tracegrad.lab.runs.checkpoints import read_checkpoint

PASSING = {"seconds", "command", "peak_memory_mb"}  # of the day and the machine


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def rows(folder):
    """The rows of metrics.csv; none of what is not trained, such as a conversion."""
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open() as file:
        return without_seconds(csv.DictReader(file))


def equal(ours, theirs):
    """Whether nested values are equal, tensors to the bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    return ours == theirs


def assert_same_run(ours, theirs):
    """Checks that two folders hold the same run to the bit, but for what depends on day and machine."""
    assert rows(ours) == rows(theirs)
    results = [json.loads((folder / "result.json").read_text()) for folder in (ours, theirs)]
    for name in results[0].keys() | results[1].keys():
        assert name in PASSING or results[0][name] == results[1][name], name
    names = {path.name for folder in (ours, theirs) for path in (folder / "checkpoints").glob("*")} - {"previous.ckpt"}
    assert "weights.ckpt" in names
    for name in names:
        here, there = (read_checkpoint(folder / "checkpoints" / name) for folder in (ours, theirs))
        assert here.keys() == there.keys()
        for checkpoint in (here, there):
            if "state" in checkpoint:
                checkpoint["state"]["rows"] = without_seconds(checkpoint["state"]["rows"])
        for part in here.keys() - {"random"}:
            assert equal(here[part], there[part]), f"{part} of {name}"
    relations = [folder / "relations.csv" for folder in (ours, theirs)]
    assert relations[0].exists() == relations[1].exists()
    assert not relations[0].exists() or relations[0].read_bytes() == relations[1].read_bytes()
