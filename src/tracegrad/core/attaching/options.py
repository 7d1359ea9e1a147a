"""The options of `attach` that say how gradients are scaled, made into a rule."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast, get_args

from tracegrad.core.equations.alpha import checked_alpha
from tracegrad.core.equations.controls import CONTROLS, NO_CONTROL, Control
from tracegrad.core.equations.expected import cancels
from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS, TimeMode
from tracegrad.core.equations.rule import Apply, Rule
from tracegrad.core.equations.scaling import SCALINGS

ControlName = str | Mapping[str, Mapping[str, float]] | None
"""The name of a control, or {"mean_scale": {synapse: number}}."""


@dataclass(frozen=True)
class Options:
    """The options of `attach` that say how gradients are scaled; they are described there."""

    alpha: float
    relation: str
    normalize: str
    scaling: str
    time: TimeMode
    relation_batch: float
    inverted: bool
    apply: Apply
    control: ControlName

    def rule(self) -> Rule:
        """The rule.

        Raises:
            TypeError: alpha, or a mean scale, is no number.
            ValueError: an unknown option, a number outside its range, or options that make no sense together.
        """
        if not 0 < self.relation_batch <= 1:
            raise ValueError(f"relation_batch is a fraction of the batch, in (0, 1], not {self.relation_batch}")
        one_of("time", self.time, get_args(TimeMode))
        one_of("apply", self.apply, get_args(Apply))
        rule = Rule(
            checked_alpha(self.alpha),
            RELATIONS[self.relation],
            NORMALIZATIONS[self.normalize],
            SCALINGS[self.scaling],
            self.time,
            self.relation_batch,
            self.inverted,
            self.apply,
            _control(self.control),
        )
        self._check_inverted(rule)
        self._check_event(rule)
        self._check_control(rule)
        return rule

    def _check_inverted(self, rule: Rule) -> None:
        if not self.inverted:
            return
        if any(term.sign < 0 for term in rule.relation):
            raise ValueError(f"inverted=True needs R_hat in [0, 1], but relation={self.relation!r} has a negative term")
        if not rule.normalize.in_unit_interval:
            known = ", ".join(repr(name) for name in NORMALIZATIONS if NORMALIZATIONS[name].in_unit_interval)
            raise ValueError(
                f"inverted=True needs R_hat in [0, 1]: normalize must be one of {known}, not {self.normalize!r}"
            )

    def _check_event(self, rule: Rule) -> None:
        """The relation inside the sum has no R_hat: it is a factor of each event, whose mean is 1."""
        if self.apply != "event":
            return
        reasons = {
            "time": (self.time == "per_step", "each event takes the signals of its own step: leave it at 'per_step'"),
            "normalize": (
                self.normalize == "max",
                "the factors of events are divided by their mean: leave it at 'max'",
            ),
            "scaling": (self.scaling == "linear", "events are summed with a factor each: leave it at 'linear'"),
            "inverted": (not self.inverted, "the factors of events have no upper end"),
            "relation_batch": (self.relation_batch == 1, "every event has a factor of its own: leave it at 1"),
            "relation": (all(term.sign > 0 for term in rule.relation), "the mean of signed factors may be 0"),
            "control": (
                rule.control.relation is None and rule.control.normalized is None and rule.control.scales is None,
                "it changes R or R_hat, of which there is none; 'counts' and 'other_image' change signals",
            ),
        }
        for option, (fits, reason) in reasons.items():
            if not fits:
                raise ValueError(f"apply='event' with {option}={getattr(self, option)!r}: {reason}")

    def _check_control(self, rule: Rule) -> None:
        name = rule.control.name
        if name == "rank_one" and self.normalize in ("centered", "lift"):
            raise ValueError(
                f"control='rank_one' with normalize={self.normalize!r}, which divides the rates out: a "
                "product of rates is what the control leaves"
            )
        if name == "post_rate" and self.scaling == "norm_preserving":
            raise ValueError(
                "control='post_rate' with scaling='norm_preserving', which takes back any factor of a whole output: "
                "no gradient would change"
            )
        if rule.control.counts and cancels(rule.relation):
            raise ValueError(
                f"control='counts' with relation={self.relation!r}, whose terms have the same expectation where "
                "spikes are shuffled in time: nothing would be left of the relation"
            )
        if rule.control.scales is not None and self.inverted:
            raise ValueError("control={'mean_scale': ...} with inverted=True: there is no R_hat to invert")


def _control(control: ControlName) -> Control:
    if control is None:
        return NO_CONTROL
    if isinstance(control, Mapping):
        if list(control) != ["mean_scale"]:
            raise ValueError(f"a control with numbers is {{'mean_scale': {{synapse: number}}}}, not {dict(control)!r}")
        return Control("mean_scale", scales=_scales(control["mean_scale"]))
    if control not in CONTROLS:
        known = ", ".join(map(repr, CONTROLS))
        raise ValueError(
            f"unknown control {control!r}; the known ones are {known} and {{'mean_scale': {{synapse: number}}}}"
        )
    return CONTROLS[control]


def _scales(scales: object) -> dict[str, float]:
    if not isinstance(scales, Mapping):
        raise TypeError(f"control mean_scale takes {{synapse: number}}, not {scales!r}")
    found: dict[str, float] = {}
    for name, scale in cast(Mapping[str, Any], scales).items():
        if not isinstance(scale, Real):
            raise TypeError(f"the mean scale of {name} must be a number, not {scale!r}")
        if not math.isfinite(scale):
            raise ValueError(f"the mean scale of {name} must be finite, not {scale}")
        found[name] = float(scale)
    return found


def check_scaled(control: Control, paired: list[str]) -> None:
    """Raises ValueError unless the synapses of a control of numbers are those that are scaled."""
    if control.scales is None:
        return
    for name in control.scales:
        if name not in paired:
            raise ValueError(f"mean_scale: {name!r} is no synapse that is scaled; these are {', '.join(paired)}")
    for name in paired:
        if name not in control.scales:
            raise ValueError(f"mean_scale has no number for {name}; leave it out with exclude, or give it 1")


def one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless a value is known."""
    if value not in known:
        raise ValueError(f"unknown {option} {value!r}; the known ones are {', '.join(map(repr, known))}")
