"""Attaches gradient scaling to a model, and takes it off again."""

from typing import Any, Literal, cast, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tracegrad.core.gate import Rule
from tracegrad.core.installation import Installation, installation_of
from tracegrad.core.neurons import is_neuron
from tracegrad.core.pairing import Pairing, find_pairs
from tracegrad.core.relation import NORMALIZATIONS, RELATIONS, TimeMode, needs_equal_ends
from tracegrad.core.scaling import SCALINGS
from tracegrad.core.synapse import (
    geometry_of,
    has_equal_ends,
    has_gate,
    is_synapse,
    overrides_current,
)

Scope = Literal["all", "same-shape"]


def attach(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...],
    *,
    alpha: float = 0.1,
    relation: str = "positive",
    normalize: str = "max",
    scaling: str = "linear",
    time: TimeMode = "per_step",
    scope: Scope = "all",
    sync: bool = False,
    spiking_input: bool = False,
    strict: bool = False,
    record: bool = False,
    relation_batch: float = 1.0,
) -> "Attachment":
    """Scales, from now on, the weight gradients of `model` by local spike information (Park et al. 2023, Eq. 7).

    Every synapse (convolution, linear layer) with spikes at both ends is paired with the neurons that its current
    reaches, found in one example forward pass that leaves the model as it is; a neuron that takes all steps at once
    and whose spikes do not reach the loss counts for nothing. In each backward pass its weight's gradient G becomes
    alpha * G * R + (1 - alpha) * G, with the relation R of the spike traces at its two ends.
    Nothing else changes: spikes, outputs, every other gradient, `state_dict()`.

    Args:
        model: any module whose neurons are tracegrad's, SpikingJelly's, snnTorch's, Norse's, or registered: they take
            all steps in one call, [T, B, ...], or one step a call, [B, ...]. Where they go step by step, the loop over
            time may be the model's or its caller's.
        example_input: what `model` is called with, one tensor or a tuple of arguments; a batch of one is enough.
        alpha: the interpolation coefficient, in [0, 1]; 0 leaves every gradient as it is.
        relation: a registered relation: "positive" (the paper's), "pre_pre" (its authors' code), or your own.
        normalize: what R is divided by: the largest of its magnitudes ("max"), their mean ("mean"), the largest per
            post-synaptic neuron ("neuron"), nothing ("none").
        scaling: a registered scaling: "linear" (the paper's) or your own.
        time: "per_step": the part of the gradient that each step contributes is scaled by R of that step;
            "mean": the whole gradient by the mean of R over time; "final": by R of the last step.
        scope: "all" pairs, or those "same-shape" ones that the authors' code scales: convolutions with a kernel over
            1, stride 1 and as many output as input channels.
        sync: under `torch.distributed`, sum R over all processes before it is normalised.
        spiking_input: the model's input [T, B, ...] is spikes, so that the first synapse can be paired.
        strict: raise if any synapse is left out.
        record: keep R of the last backward pass in `Attachment.relations`.
        relation_batch: the fraction of the batch, its first examples, of which R is computed, in (0, 1]; less than 1
            makes R an estimate, and faster.

    Returns:
        The attachment: what was paired and what was not, and `detach()`.

    Raises:
        ValueError: an unknown option, alpha outside [0, 1], relation_batch outside (0, 1], a model without neurons or
            with scaling attached, a lazy or compiled module, a paired convolution whose padding is not zeros, time
            not first, or (`strict`) a synapse left out.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    if not 0 < relation_batch <= 1:
        raise ValueError(f"relation_batch is a fraction of the batch, in (0, 1], not {relation_batch}")
    _one_of("time", time, get_args(TimeMode))
    _one_of("scope", scope, get_args(Scope))
    terms = RELATIONS[relation]
    rule = Rule(alpha, terms, NORMALIZATIONS[normalize], SCALINGS[scaling], time, sync, relation_batch)
    _check_model(model)
    example = example_input if isinstance(example_input, tuple) else (example_input,)
    pairing = find_pairs(model, example, spiking_input)
    _leave_out(model, pairing, scope, needs_equal_ends(terms))
    if pairing.period and time != "per_step" and scaling != "linear":
        raise ValueError(
            f"scaling={scaling!r} with time={time!r} needs the whole gradient at once, but the neurons of this model "
            "are called step by step: use time='per_step' or scaling='linear'"
        )
    installation = Installation(model, pairing, rule, spiking_input, record)
    attachment = Attachment(installation)
    if strict and attachment.skipped:
        name, reason = attachment.skipped[0]
        raise ValueError(f"strict=True, but {len(attachment.skipped)} synapses would be left out; {name}: {reason}")
    installation.install()
    return attachment


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {option} {value!r}; the known ones are {', '.join(map(repr, known))}")


def _check_model(model: nn.Module) -> None:
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        raise ValueError("the model is compiled already: attach to the plain model, then compile it")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} is lazy and has no shape yet: run the model once, then attach")
    for name, module in model.named_modules():
        if is_synapse(module) and has_gate(module):
            raise ValueError(f"{name} has gradient scaling attached already: call detach() of that attachment first")
    if not any(is_neuron(module) for module in model.modules()):
        raise ValueError("the model holds no neuron that is known; tg.register_neuron(YourNeuron) makes one known")


def _leave_out(model: nn.Module, pairing: Pairing, scope: Scope, equal_ends: bool) -> None:
    """Moves the uses of synapses that the options leave out from the paired to the refused ones."""
    for neuron, uses in pairing.receivers.items():
        for use in uses:
            synapse = model.get_submodule(use[0])
            try:
                geometry_of(synapse)
            except ValueError as error:
                raise ValueError(f"{use[0]}: {error}") from None
            if scope == "same-shape" and not _is_same_shape(synapse):
                pairing.refused[use] = "scope='same-shape' takes convolutions that keep channels, with stride 1, only"
            elif equal_ends and not has_equal_ends(synapse):
                pairing.refused[use] = "its two ends differ in shape, which the relation does not allow"
        pairing.receivers[neuron] = [use for use in uses if use not in pairing.refused]


def _is_same_shape(synapse: nn.Module) -> bool:
    return (
        isinstance(synapse, nn.Conv1d | nn.Conv2d)
        and synapse.in_channels == synapse.out_channels
        and all(stride == 1 for stride in synapse.stride)
        and any(size > 1 for size in synapse.kernel_size)
    )


class Attachment:
    """Gradient scaling on a model: what is scaled, what is not and why.

    Attributes:
        pairs: (synapse name, neuron name), in the model's order.
        skipped: (synapse name, reason) of what is left unscaled.
        relations: with `record=True`, each synapse's normalised relation of the last backward pass:
            [T, *weight.shape] for `time="per_step"`, else weight.shape. Of a synapse that is used more than once,
            the use that the backward pass reached last.
    """

    def __init__(self, installation: Installation) -> None:
        model, pairing = installation.model, installation.pairing
        self.pairs = _pairs(model, pairing)
        self.skipped = _skipped(model, pairing)
        self._installation = installation

    @property
    def relations(self) -> dict[str, Tensor]:
        """The normalised relations of the last backward pass."""
        return self._installation.relations

    def detach(self) -> None:
        """Takes the scaling off; the model is as it was before. Calling it again does nothing."""
        self._installation.remove()

    def __str__(self) -> str:
        rows = [("synapse", "weight", "neuron, or why it is left unscaled")]
        for name, other in (*self.pairs, *((name, f"- {reason}") for name, reason in self.skipped)):
            weight = cast(Tensor, self._installation.model.get_submodule(name).weight)
            rows.append((name, "x".join(map(str, weight.shape)), other))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {other}" for name, shape, other in rows]
        scaled = len(dict(self.pairs))
        return "\n".join([f"gradient scaling of {scaled} of {scaled + len(self.skipped)} synapses", "", *lines])


def _pairs(model: nn.Module, pairing: Pairing) -> list[tuple[str, str]]:
    found = {(use[0], neuron): None for (neuron, _), uses in pairing.receivers.items() for use in uses}
    order = {name: position for position, (name, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda pair: (order[pair[0]], order[pair[1]]))


def _skipped(model: nn.Module, pairing: Pairing) -> list[tuple[str, str]]:
    skipped: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        calls = pairing.calls.get(name, 0)
        if is_synapse(module) and overrides_current(module):
            skipped.append((name, f"{type(module).__name__} computes its current in a way of its own"))
        elif is_synapse(module) and not calls:
            skipped.append((name, "not called, or in a way of its own, in the example forward pass"))
        elif _has_weights(module) and not is_synapse(module) and not is_neuron(module):
            skipped.append((name, f"{type(module).__name__} is not supported; Conv1d, Conv2d and Linear are"))
        reasons = [(call, pairing.refused[name, call]) for call in range(calls) if (name, call) in pairing.refused]
        if len(reasons) == calls and len(set(dict(reasons).values())) == 1:
            skipped.append((name, reasons[0][1]))
        else:
            skipped += [(name, f"call {call + 1} of {calls}: {reason}") for call, reason in reasons]
    return skipped


def _has_weights(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() > 1


def detach(model: nn.Module) -> None:
    """Takes gradient scaling off a model, also off a deep copy of one that it was attached to.

    Raises:
        ValueError: nothing is attached to `model` itself.
    """
    installation = installation_of(model)
    if installation is None:
        raise ValueError("no gradient scaling is attached to this model (to a part of it, or to what it is part of?)")
    installation.remove()
