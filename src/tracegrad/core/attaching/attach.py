"""Attaches gradient scaling to a model, and takes it off again."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tracegrad.core.attaching.attachment import Attachment
from tracegrad.core.attaching.installation import Installation, installation_of
from tracegrad.core.attaching.options import ControlName, Options, check_scaled, one_of
from tracegrad.core.equations.layers import has_equal_ends
from tracegrad.core.equations.relation import TimeMode, needs_equal_ends
from tracegrad.core.equations.rule import Apply
from tracegrad.core.neurons import is_neuron
from tracegrad.core.pairing.pairs import Pairing, find_pairs
from tracegrad.core.pairing.refusals import why_nothing_is_paired
from tracegrad.core.processes import ProcessSum
from tracegrad.core.synapses import has_gate
from tracegrad.core.torch_internals import is_compiled
from tracegrad.events.choice import Events, mode

Scope = Literal["all", "same-shape"]
Patterns = str | Iterable[str] | None


def attach(
    model: nn.Module,
    example_input: Tensor | tuple[Any, ...] = (),
    *,
    example_kwargs: dict[str, Any] | None = None,
    alpha: float = 0.1,
    relation: str = "positive",
    normalize: str = "max",
    scaling: str = "linear",
    time: TimeMode = "per_step",
    scope: Scope = "all",
    include: Patterns = None,
    exclude: Patterns = None,
    sync: bool = False,
    spiking_input: bool = False,
    through_pools: bool = False,
    strict: bool = False,
    allow_empty: bool = False,
    record: bool = False,
    relation_batch: float = 1.0,
    inverted: bool = False,
    apply: Apply = "outside",
    control: ControlName = None,
    control_seed: int = 0,
    events: Events = "auto",
) -> Attachment:
    """Scales, from now on, the weight gradients of `model` by local spike information (Park et al. 2023, Eq. 7).

    Every synapse (a layer with a weight) with spikes at both ends is paired with the neurons that its current reaches,
    found in one example forward pass that leaves the model as it is. In each backward pass its weight's gradient G
    becomes alpha * G * R + (1 - alpha) * G, with the relation R of the spike traces at its two ends. A neuron whose
    spikes do not reach the loss is ignored. Nothing else changes, but for rounding (`events`): spikes, outputs, every
    other gradient, `state_dict()`.

    Args:
        model: any module whose neurons are tracegrad's, SpikingJelly's, snnTorch's, Norse's, sinabs', or registered:
            they take all steps in one call, [T, B, ...] or as registered, or one step a call, [B, ...]. Where they go
            step by step, the loop over time may be the model's or its caller's.
        example_input: what `model` is called with, one tensor or a tuple of arguments; a batch of one is enough.
        example_kwargs: the keyword arguments that `model` is called with.
        alpha: the interpolation coefficient, in [0, 1]; 0 leaves every gradient as it is.
        relation: a registered relation: "positive" (the paper's), "pre_pre" (its authors' code), "causal" (the
            pre-synaptic trace when the post-synaptic neuron fires), "anticausal" (the other way round), "stdp" (the
            first less the second), "coincidence" (spikes of one step), or your own.
        normalize: what R is divided by: the largest of its magnitudes ("max"), their mean ("mean"), the largest per
            post-synaptic neuron ("neuron"), nothing ("none"); or what divides the firing rates out: "cosine",
            "centered" (Pearson's correlation), "lift" (1 where the ends are independent); or your own.
        scaling: a registered scaling: "linear" (the paper's), "exponential", "norm_preserving", or your own.
        time: "per_step": the part of the gradient that each step contributes is scaled by R of that step;
            "mean": the whole gradient by the mean of R over time; "final": by R of the last step.
        scope: "all" pairs, or those "same-shape" ones that the authors' code scales: convolutions with a kernel over
            1, stride 1 and as many output as input channels.
        include: names of synapses to scale, or patterns such as "layers.*.conv?"; None for all.
        exclude: names or patterns of synapses to leave as they are.
        sync: under `torch.distributed`, sum R over all processes before it is normalised.
        spiking_input: the model's input is spikes, so that the first synapse can be paired; also constants of 0 and
            one height that the model makes, as an encoder in it does.
        through_pools: pair a synapse with a neuron behind a pool, whose own backward brings the spikes back to the
            current: a maximum to its winner, an average to all in its window.
        strict: raise if any synapse is left out.
        allow_empty: return an attachment that scales nothing where nothing can be paired.
        record: keep R of the last backward pass in `Attachment.relations`.
        relation_batch: the fraction of the batch, its first examples, of which R is computed, in (0, 1]; less than 1
            makes R an estimate, and faster.
        inverted: scale by 1 - R_hat instead of R_hat; only where R_hat lies in [0, 1].
        apply: "outside": the relation scales the gradient, a sum over events (Eq. 7). "event": it stands inside of the
            sum, as three-factor rules have it: the contribution of each input spike s at its step t to each output, s
            times d = dL/dz, is multiplied by x_pre(t) x_post(t) / c, where c is the mean of that factor over all pairs
            of an input spike and an output: dW = (1 - alpha) correlate(s, d) + alpha correlate(s x_pre, d x_post) / c.
            With `record`, the mean factor of the events of each weight.
        control: what is taken out of the relation, to see what it is worth. "counts": when in the sequence a neuron
            fires (every spike and trace is replaced by its expectation if spikes were shuffled in time); "other_image":
            that both ends saw the same example (post-synaptic spikes of the example before); "pre_rate", "post_rate":
            the other end (R_hat is replaced by its mean over outputs, over inputs and kernel positions); "rank_one":
            all but a product of both ends (the first part of R's singular value decomposition, per group); "shuffle":
            which input a value belongs to (R_hat is permuted within each output, anew in each backward pass).
            {"mean_scale": {synapse: number}}: all of it; gradients are multiplied by these numbers.
        control_seed: of the permutations of "shuffle", which are the same in all processes.
        events: on CPUs, currents, gradients and relations of float32 and bf16 are summed over spikes: where that is
            faster ("auto", or as TRACEGRAD_EVENTS in the environment says), wherever it is possible (True) or never
            (False). All results are the same but for rounding.

    Returns:
        The attachment: what was paired and what was not, and `detach()`.

    Raises:
        TypeError: alpha is no number.
        ValueError: an unknown option, alpha outside [0, 1], relation_batch outside (0, 1], a pattern that fits no
            synapse, options that make no sense together, a model without neurons or with scaling attached, a lazy or
            compiled module, a registered neuron that does not do what was declared, no pair, or (`strict`) a synapse
            left out.
    """
    one_of("scope", scope, get_args(Scope))
    rule = Options(alpha, relation, normalize, scaling, time, relation_batch, inverted, apply, control).rule()
    check_model(model)
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    pairing = find_pairs(model, arguments, example_kwargs or {}, spiking_input, through_pools)
    _leave_out(model, pairing, scope, needs_equal_ends(rule.relation))
    _choose(pairing, include, exclude)
    if pairing.steps and any(pairing.steps.values()) and time != "per_step" and not rule.scaling.homogeneous:
        raise ValueError(
            f"scaling={scaling!r} with time={time!r} needs the whole gradient at once, but the neurons of this model "
            "are called step by step: use time='per_step' or a scaling that is linear in the gradient"
        )
    sum_processes = ProcessSum() if sync else None
    installation = Installation(model, pairing, rule, control_seed, mode(events), sum_processes, record)
    attachment = Attachment(installation)
    if not attachment.pairs and not allow_empty:
        raise ValueError(f"{why_nothing_is_paired(attachment.skipped)}\n\n{attachment}")
    if strict and attachment.skipped:
        name, reason = attachment.skipped[0]
        raise ValueError(f"strict=True, but {len(attachment.skipped)} synapses would be left out; {name}: {reason}")
    check_scaled(rule.control, list(installation.synapses))
    installation.install()
    return attachment


def check_model(model: nn.Module) -> None:
    """Raises ValueError where no gates can be put into a model."""
    for name, module in model.named_modules():
        if is_compiled(module):
            compiled = name or "the model"
            raise ValueError(f"{compiled} is compiled already: attach to the plain model, then compile it")
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise ValueError(
            "nn.DataParallel runs copies of the model in threads, which share one gradient scaling: use "
            "torch.nn.parallel.DistributedDataParallel"
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"{name} is lazy and has no shape yet: run the model once, then attach")
    for name, module in model.named_modules():
        if has_gate(module):
            raise ValueError(
                f"{name} has gradient scaling attached already, or is accelerated: call detach() of that first"
            )
    if not any(is_neuron(module) for module in model.modules()):
        raise ValueError("the model holds no neuron that is known; register its class: tg.register_neuron(YourNeuron)")


def _leave_out(model: nn.Module, pairing: Pairing, scope: Scope, equal_ends: bool) -> None:
    """Moves the synapses that the options leave out from the paired to the refused ones."""
    for name in {use[0] for use, _ in pairing.paired()}:
        synapse = model.get_submodule(pairing.owners[name])
        if scope == "same-shape" and not _is_same_shape(synapse):
            pairing.leave_out(name, "scope='same-shape' takes convolutions that keep channels, with stride 1, only")
        elif equal_ends and not has_equal_ends(synapse):
            pairing.leave_out(name, "its two ends differ in shape, which the relation does not allow")


def _is_same_shape(synapse: nn.Module) -> bool:
    return (
        isinstance(synapse, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and synapse.in_channels == synapse.out_channels
        and all(stride == 1 for stride in synapse.stride)
        and any(size > 1 for size in synapse.kernel_size)
    )


def _choose(pairing: Pairing, include: Patterns, exclude: Patterns) -> None:
    for option, patterns in (("include", include), ("exclude", exclude)):
        if patterns is None:
            continue
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in pairing.owners):
                known = ", ".join(pairing.owners)
                raise ValueError(f"{option}={pattern!r} fits no synapse; there are {known}")
        for name in {use[0] for use, _ in pairing.paired()}:
            fits = any(fnmatchcase(name, pattern) for pattern in patterns)
            if fits != (option == "include"):
                pairing.leave_out(name, f"left out by {option}={', '.join(map(repr, patterns)) or '[]'}")


def detach(model: nn.Module) -> None:
    """Takes gradient scaling off a model, also off a deep copy of one that it was attached to.

    Raises:
        ValueError: nothing is attached to `model` itself.
    """
    installation = installation_of(model)
    if installation is None:
        raise ValueError("no gradient scaling is attached to this model (to a part of it, or to what it is part of?)")
    installation.remove()
