"""What rules would do to the gradients of a network, without training it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tracegrad.core.equations.alpha import checked_alpha
from tracegrad.core.equations.controls import CONTROLS
from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS, TimeMode, needs_equal_ends
from tracegrad.core.equations.rule import Rule
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.core.equations.trace import DECAY
from tracegrad.measure.changes import HALVES, Change, SeenSynapse, explained, shared, shared_by_pairs
from tracegrad.measure.diagnosis import DiagnosedRule, Diagnosis, Observations
from tracegrad.measure.witness import SeenUse, watch_backward
from tracegrad.methods.objectives import OBJECTIVES

Loss = Callable[[Any, Any], Tensor]
Rules = Sequence[tuple[DiagnosedRule, Rule]]
TIMES: tuple[TimeMode, ...] = get_args(TimeMode)
OF_SIGNALS, OF_RATES = ("other_image", "counts"), ("pre_rate", "post_rate", "rank_one")


def diagnose(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    *,
    loss: Loss = OBJECTIVES["mean_cross_entropy"],
    relations: Sequence[str] = ("positive", "causal", "anticausal", "stdp", "coincidence"),
    normalizations: Sequence[str] = ("max", "cosine", "centered", "lift"),
    times: Sequence[TimeMode] = TIMES,
    alphas: Sequence[float] = (0.1, 0.5),
    scaling: str = "linear",
    events: bool = True,
    decay: float = DECAY,
    **options: Any,
) -> Diagnosis:
    """Tells what gradient scaling would do to a network, rule by rule, without training.

    For each relation, normalisation, time mode and alpha, and for the relation inside the sum (`apply="event"`): by
    what angle the rule turns the gradient of each filter; what part of the relation, and of the change that it makes,
    the rates of channels, other examples and spike counts explain (the controls of `tracegrad.attach`); whether two
    halves of a batch agree on the relation; and whether rules agree with each other. What spike counts leave
    unexplained is timing.

    Args:
        model: any network that `tracegrad.attach` takes, whose loop over time, if it has one, is its own. Nothing of it
            changes: everything is computed on copies in training mode.
        batches: pairs of what the model is called with (a tensor, or a tuple of arguments) and targets; each with two
            examples at least.
        loss: (outputs, targets) -> a loss.
        relations: names of registered relations.
        normalizations: names of registered normalisations.
        times: time modes.
        alphas: strengths of the scaling.
        scaling: a registered scaling.
        events: also the relation inside the sum, of those without a negative term.
        decay: of the traces (Eq. 5), in [0, 1]; the paper's by default, which is also what `tracegrad.attach` takes.
        options: those of `tracegrad.attach` that say which synapses are scaled: scope, include, exclude, spiking_input,
            through_pools, example_kwargs.

    Returns:
        The findings, by rule, alpha and synapse, each a mean over the batches. A synapse that is used several times
        counts once for each use; one whose ends differ in shape has no finding for a relation that does not allow it.

    Raises:
        TypeError: an alpha that is no number.
        ValueError: no batch or one of a single example, an unknown name, alpha or decay outside [0, 1], or as
            `tracegrad.attach`.
    """
    rules = list(_rules(relations, normalizations, times, scaling, events))
    strengths, seen = [checked_alpha(alpha) for alpha in alphas], Observations()
    for inputs, targets in batches:
        for use in _watched(model, inputs, targets, loss, options):
            with torch.no_grad():
                _observe(use, rules, strengths, decay, seen)
    return seen.diagnosis()


def _watched(model: nn.Module, inputs: Any, targets: Any, loss: Loss, options: dict[str, Any]) -> list[SeenUse]:
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    keywords = options.get("example_kwargs") or {}
    devices = {x.device for x in arguments if isinstance(x, Tensor) and x.is_cuda}
    with torch.random.fork_rng(list(devices)):
        return watch_backward(model, lambda network: loss(network(*arguments, **keywords), targets), inputs, **options)


def _rules(
    relations: Sequence[str], normalizations: Sequence[str], times: Sequence[TimeMode], scaling: str, events: bool
) -> Iterator[tuple[DiagnosedRule, Rule]]:
    for time in times:
        if time not in TIMES:
            raise ValueError(f"unknown time {time!r}; the known ones are {', '.join(map(repr, TIMES))}")
    for relation in relations:
        terms = RELATIONS[relation]
        for normalize in normalizations:
            rule = Rule(0.0, terms, NORMALIZATIONS[normalize], SCALINGS[scaling], "per_step")
            for time in times:
                yield DiagnosedRule("outside", relation, normalize, time), replace(rule, time=time)
        if events and all(term.sign > 0 for term in terms):
            rule = Rule(0.0, terms, NORMALIZATIONS["max"], SCALINGS["linear"], "per_step", apply="event")
            yield DiagnosedRule("event", relation, "mean", "per_step"), rule


def _observe(use: SeenUse, rules: Rules, alphas: Sequence[float], decay: float, seen: Observations) -> None:
    """What all rules do at one use of a synapse in one batch."""
    if use.pre.shape[1] < 2:
        raise ValueError("diagnose compares examples with each other: each batch needs two at least")
    synapse = SeenSynapse(use, any(rule.needs_moments for _, rule in rules), decay)
    size = float(synapse.gradient.double().square().sum())
    relations, changes = dict[DiagnosedRule, Tensor](), dict[DiagnosedRule, Tensor]()
    for name, rule in rules:
        if needs_equal_ends(rule.relation) and use.pre.shape != use.post.shape:
            continue
        plain, controls = synapse.change(rule, "none", alphas), _controls(synapse, name, rule, alphas)
        relations[name] = plain.relation
        reliability = explained(*(synapse.change(rule, half, ()).relation for half in HALVES))
        of_relation = {each: explained(change.relation, plain.relation) for each, change in controls.items()}
        for alpha in alphas:
            turned = synapse.turned(plain.gradients[alpha])
            changes.setdefault(name, turned)
            parts = {each: synapse.turned(change.gradients[alpha]) for each, change in controls.items()}
            of_change = {each: shared(part, turned, size) for each, part in parts.items()}
            angles = synapse.angles(plain.gradients[alpha])
            seen.add(name, alpha, use.synapse, angles, reliability, of_relation, of_change)
    for (a, x), (b, y) in combinations(relations.items(), 2):
        if a.time == b.time:
            seen.agree(a, b, explained(x, y))
    if changes:
        overlap = shared_by_pairs(list(changes.values()), size).tolist()
        for (i, a), (j, b) in combinations(enumerate(changes), 2):
            seen.overlap(a, b, overlap[i][j])


def _controls(synapse: SeenSynapse, name: DiagnosedRule, rule: Rule, alphas: Sequence[float]) -> dict[str, Change]:
    changes = {control: synapse.change(rule, control, alphas) for control in OF_SIGNALS}
    for control in OF_RATES if rule.apply == "outside" else ():
        if control != "rank_one" or name.normalize not in ("centered", "lift"):
            changes[control] = synapse.change(replace(rule, control=CONTROLS[control]), "none", alphas)
    return changes
