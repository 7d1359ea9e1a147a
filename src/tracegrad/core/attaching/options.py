"""The options of `attach` that say how gradients are scaled, made into a rule."""

from typing import get_args

from tracegrad.core.equations.alpha import checked_alpha
from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS, TimeMode
from tracegrad.core.equations.rule import Rule
from tracegrad.core.equations.scaling import SCALINGS


def make_rule(
    alpha: float,
    relation: str,
    normalize: str,
    scaling: str,
    time: TimeMode,
    relation_batch: float,
    inverted: bool,
) -> Rule:
    """The rule of these options of `attach`.

    Raises:
        TypeError: alpha is no number.
        ValueError: an unknown option, a number outside its range, or options that make no sense together.
    """
    if not 0 < relation_batch <= 1:
        raise ValueError(f"relation_batch is a fraction of the batch, in (0, 1], not {relation_batch}")
    one_of("time", time, get_args(TimeMode))
    terms, normalization = RELATIONS[relation], NORMALIZATIONS[normalize]
    if inverted and any(term.sign < 0 for term in terms):
        raise ValueError(f"inverted=True needs R_hat in [0, 1], but relation={relation!r} has a negative term")
    if inverted and not normalization.in_unit_interval:
        known = ", ".join(repr(name) for name in NORMALIZATIONS if NORMALIZATIONS[name].in_unit_interval)
        raise ValueError(f"inverted=True needs R_hat in [0, 1]: normalize must be one of {known}, not {normalize!r}")
    return Rule(checked_alpha(alpha), terms, normalization, SCALINGS[scaling], time, relation_batch, inverted)


def one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless a value is known."""
    if value not in known:
        raise ValueError(f"unknown {option} {value!r}; the known ones are {', '.join(map(repr, known))}")
