"""tracegrad: unscaled, and with gradient scaling in each time mode."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from tracegrad.core.attaching.attach import attach
from tracegrad.snn.models.resnet import ResNet
from tracegrad.snn.neurons import LIF
from tracegrad_benchmark.workload import LEAK, THRESHOLD, Competitor, Precision, Workload, of_network

LIBRARY = "tracegrad"


def network(workload: Workload) -> nn.Module:
    """Images [B, C, H, W] to outputs [T, B, classes]."""
    return ResNet(
        workload.blocks,
        workload.classes,
        workload.channels,
        workload.width,
        workload.time_steps,
        neuron=lambda: LIF(leak=LEAK, threshold=THRESHOLD),
    )


def _competitor(
    precision: Precision, variant: str = "", events: Literal["auto", "0"] = "auto", **scaling: Any
) -> Competitor:
    """A competitor with gradient scaling attached, if options of it are given."""

    def build(workload: Workload) -> nn.Module:
        model = network(workload)
        if scaling:
            attach(model, workload.images()[:1].cpu(), **scaling)
        return model

    return Competitor(LIBRARY, precision, of_network(build, channels_last=True, events=events), variant, bool(scaling))


UNSCALED = _competitor("bf16")
PER_STEP = _competitor("bf16", "per_step", time="per_step")

CONTESTANTS = (
    UNSCALED,
    _competitor("bf16", "final", time="final"),
    _competitor("bf16", "mean", time="mean"),
    PER_STEP,
    _competitor("bf16", "per_step, relation_batch=0.25", time="per_step", relation_batch=0.25),
    _competitor("bf16", "dense", events="0"),
    _competitor("float32"),
    _competitor("float32", "dense", events="0"),
)
