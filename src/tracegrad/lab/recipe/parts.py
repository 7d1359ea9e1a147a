"""The sections of a recipe: network, neurons, training, and what sets a method apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from tracegrad.core.attaching.attach import Scope
from tracegrad.core.equations.alpha import Course
from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS, TimeMode
from tracegrad.core.equations.rule import Apply
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.lab.recipe.code import is_code, named
from tracegrad.lab.values import Count, Fraction, NotNegative, Positive, Section, Share, require
from tracegrad.snn.dynamics import Reset
from tracegrad.snn.models import MODELS
from tracegrad.snn.surrogate import SURROGATES

EVERY = re.compile(r"([1-9]\d{0,8})(s|min|h|steps)")
MOST_STEPS = 10_000
Processes = Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True)
class Neuron(Section):
    """The neurons of the network: leaky integrate-and-fire, or others.

    Args:
        name: lif, or a factory of one's own, which is given those of the following that it takes.
        leak: share of the membrane that is left after one time step; 1 makes integrate-and-fire neurons.
        threshold: membrane at which a neuron fires.
        reset: "soft" subtracts the threshold after a spike, "hard" sets the membrane to `rest`.
        rest: membrane after a hard reset.
        surrogate: derivative that stands for the spike's own in back-propagation.
        detach_reset: cut the gradient that flows through the reset.
        options: further arguments of a factory of one's own, by name.
    """

    name: str = "lif"
    leak: Share = 0.9
    threshold: Positive = 0.5
    reset: Reset = "soft"
    rest: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    surrogate: Annotated[str, named(SURROGATES)] = "boxcar"
    detach_reset: bool = False
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.name == "lif" or is_code(self.name), "model.neuron.name", "lif or package.module:name", self.name)


@dataclass(frozen=True)
class Model(Section):
    """The network.

    Args:
        name: which network.
        time_steps: time steps T for which each image is shown.
        options: further arguments of the network by name, e.g. blocks, width and norm of a ResNet.
        neuron: its neurons.
    """

    name: Annotated[str, named(MODELS)] = "resnet20"
    time_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 4
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    neuron: Neuron = field(default_factory=Neuron)

    @property
    def reset(self) -> str | None:
        """How its neurons are reset, where the recipe says it: not of a network or neurons of one's own."""
        return None if is_code(self.name) or is_code(self.neuron.name) else self.neuron.reset


@dataclass(frozen=True)
class Training(Section):
    """How the network is trained.

    Args:
        epochs: passes over the training data.
        batch_size: images per step of the optimizer.
        optimizer: the optimizer.
        learning_rate: learning rate at the start.
        momentum: momentum of SGD, first beta of Adam.
        weight_decay: L2 penalty, added to the gradient after scaling.
        rate_penalty: weight of the mean firing rate in the loss, spikes per neuron and time step.
        schedule: "step" multiplies the learning rate every `decay_every` epochs by `decay_factor`, "cosine" lowers it
            to 0 along half a cosine.
        decay_every: epochs between two steps of the "step" schedule.
        decay_factor: factor of the "step" schedule.
        precision: "fp32", "bf16" for mixed precision with bfloat16, or "fp64".
        threads: CPU threads, PyTorch's own choice by default; a fixed number gives the same numbers on machines with
            more or fewer cores, and a small network trains best with 1.
        devices: processes that train one network together on each machine, a GPU each where there are some.
        nodes: machines that do.
        keep: which weights are tested: those of the "best" epoch by validation accuracy, or the "final" ones.
        checkpoint_every: what a kill loses at most, such as "90s", "5min" or "500steps"; the end of an epoch is kept,
            too.
    """

    epochs: Count = 300
    batch_size: Count = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 1e-4
    rate_penalty: NotNegative = 0.0
    schedule: Literal["step", "cosine"] = "step"
    decay_every: Count = 100
    decay_factor: Fraction = 0.1
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    threads: Processes | None = None
    devices: Processes = 1
    nodes: Processes = 1
    keep: Literal["best", "final"] = "best"
    checkpoint_every: str = "5min"

    def __post_init__(self) -> None:
        super().__post_init__()
        right = "a time or a number of steps, such as 90s, 5min, 1h or 500steps"
        require(bool(EVERY.fullmatch(self.checkpoint_every)), "training.checkpoint_every", right, self.checkpoint_every)
        enough = self.devices * self.nodes <= self.batch_size
        require(enough, "training.batch_size", "at least one image a process", self.batch_size)


SCALING = (
    *("alpha", "relation", "normalize", "scaling", "time", "scope", "relation_batch"),
    *("inverted", "apply", "control", "control_seed"),
)
"""The options of a method that say how weight gradients are scaled."""


@dataclass(frozen=True)
class Method(Section):
    """How a network is trained: how its weight gradients are scaled, or by which other method it comes about.

    Args:
        alpha: strength of the scaling between 0 and 1; 0 is the baseline, and 1e-6 a placebo: what a training makes
            of a difference that means nothing.
        relation: which relation of pre- and post-synaptic activity scales a gradient.
        normalize: how the relation is normalised.
        scaling: how gradient and relation combine.
        time: how time steps combine: "per_step", "mean" or "final".
        scope: which synapses are scaled: "all" with spikes at both ends, or "same-shape".
        relation_batch: the fraction of a batch of which the relation is computed; an estimate below 1.
        inverted: scale by 1 less the relation.
        apply: the relation "outside" of the gradient's sum over events, or a factor of each "event".
        control: what is taken out of the relation: "counts", "other_image", "pre_rate", "post_rate", "rank_one",
            "shuffle", or all of it: {mean_scale: {SYNAPSE: NUMBER}}.
        control_seed: of what a control draws at random, together with the seed of the run.
        alpha_schedule: "constant", "warmup" from 0 to `alpha`, or "cosine" from `alpha` to 0.
        alpha_epochs: of warm-up or cosine; all by default.
        kind: "direct" trains the spiking network; "synchrony" does, and changes weights by the synchrony of spikes;
            "relu" its twin of rectified linear units, without spikes; "quantized" one of quantised activations; "qcfs"
            a twin that is aware of its conversion; "calibration" converts the trained network of `source`; "tandem"
            has it teach a spiking one; "stdp" learns without labels.
        source: the method whose network is converted or teaches, with the same seed.
        options: of the kind, by name.
        changes: fields of the recipe that are others for this method, e.g. {objective: tet}.
    """

    alpha: Share = 0.1
    relation: Annotated[str, named(RELATIONS)] = "positive"
    normalize: Annotated[str, named(NORMALIZATIONS)] = "max"
    scaling: Annotated[str, named(SCALINGS)] = "linear"
    time: TimeMode = "per_step"
    scope: Scope = "all"
    relation_batch: Fraction = 1.0
    inverted: bool = False
    apply: Apply = "outside"
    control: str | dict[str, dict[str, float]] | None = None
    control_seed: int = 0
    alpha_schedule: Course = "constant"
    alpha_epochs: Count | None = None
    kind: str = "direct"
    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind == "direct" or not self.alpha, f"alpha of a method of kind {self.kind}", "0", self.alpha)

    @property
    def attachment(self) -> dict[str, Any]:
        """The options of `tracegrad.attach`."""
        return {name: getattr(self, name) for name in SCALING}
