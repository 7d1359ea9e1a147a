import csv
import json

import torch

PASSING = {"seconds", "command", "peak_memory_mb"}  # of the day and the machine


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(ours, theirs):
    """Checks that two folders hold the same run to the bit, but for what depends on day and machine."""
    assert rows(ours) == rows(theirs)
    results = [json.loads((folder / "result.json").read_text()) for folder in (ours, theirs)]
    for name in results[0].keys() | results[1].keys():
        assert name in PASSING or results[0][name] == results[1][name], name
    for name in ("best.ckpt", "last.ckpt"):
        here, there = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (ours, theirs))
        assert here["epoch"] == there["epoch"], name
        for part in ("state_dict", "optimizer_states"):
            torch.testing.assert_close(here[part], there[part], rtol=0, atol=0, msg=f"{part} of {name}")
    relations = [folder / "relations.csv" for folder in (ours, theirs)]
    assert relations[0].exists() == relations[1].exists()
    assert not relations[0].exists() or relations[0].read_bytes() == relations[1].read_bytes()
