"""Small graphs of every kind of layer, and their files."""

import torch
from nir_networks import OverTime, hard
from torch import nn

import tracegrad as tg


def images():
    """Layers of each kind, on images."""
    torch.manual_seed(0)
    network = nn.Sequential(
        OverTime(nn.Conv2d(1, 2, 3, padding=1)),
        hard(),
        OverTime(nn.AvgPool2d(2)),
        OverTime(nn.Conv2d(2, 2, 2, bias=False)),
        hard(leak=1.0),
        nn.Flatten(2),
        nn.Linear(2, 3),
    )
    return tg.adapters.nir.to_nir(network, torch.zeros(1, 1, 1, 4, 4))


def signals():
    """Layers on signals."""
    torch.manual_seed(0)
    network = nn.Sequential(
        OverTime(nn.Conv1d(2, 3, 3)), hard(threshold=torch.tensor([0.3, 0.4, 0.5])), nn.Flatten(2), nn.Linear(12, 2)
    )
    return tg.adapters.nir.to_nir(network, torch.zeros(1, 1, 2, 6))


GRAPHS = {"images": (images(), (1, 4, 4)), "signals": (signals(), (2, 6))}
FILES = {kind: tg.adapters.nir.to_bytes(graph) for kind, (graph, _) in GRAPHS.items()}
