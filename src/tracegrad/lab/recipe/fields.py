"""What a recipe says: data, network, training, methods and seeds of one experiment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from tracegrad.lab.data import DATASETS, DataOptions
from tracegrad.lab.recipe.code import check_name, named
from tracegrad.lab.recipe.parts import Method, Model, Training
from tracegrad.lab.values import Section, over, require, typed
from tracegrad.methods.objectives import OBJECTIVES


@dataclass(frozen=True)
class Claims(Section):
    """What a study is to show, said before it is trained; the report says which of it the runs support.

    Args:
        margin: of test accuracy in points: each method is tested for being no worse than the baseline by that much or
            more, and for differing by less.
        better: by method, the methods that it must be better than, all of them; e.g. the baseline and a control.
    """

    margin: Annotated[float, Field(gt=0, le=100)] | None = None
    better: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def on(self, methods: Iterable[str]) -> Claims:
        """Those on these methods alone."""
        known = set(methods)
        return replace(self, better={name: than for name, than in self.better.items() if {name, *than} <= known})


@dataclass(frozen=True)
class Recipe(Section):
    """A whole experiment.

    Args:
        name: name of the study, the file's by default; its folder is runs/NAME.
        description: one line on what the study is.
        data: the images.
        model: the network.
        objective: the loss.
        training: how the network is trained.
        methods: the methods to compare, each a name with its options; the first one with alpha 0 is the baseline.
        seeds: one run of every method per seed; the methods share its initial weights and order of data.
        claims: what the study is to show.
        code: folder of the modules that this recipe names as package.module:name; the recipe's own by default.
    """

    name: str = "study"
    description: str = ""
    data: DataOptions = field(default_factory=DataOptions)
    model: Model = field(default_factory=Model)
    objective: Annotated[str, named(OBJECTIVES)] = "mean_cross_entropy"
    training: Training = field(default_factory=Training)
    methods: dict[str, Method] = field(default_factory=lambda: {"baseline": Method(alpha=0.0)})
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = field(default_factory=lambda: [0])
    claims: Claims = field(default_factory=Claims)
    code: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (self.name, *self.methods):
            require(_names_a_folder(name), "the name of a study or method", "usable as a folder's name", name)
        require(len(self.methods) > 0, "methods", "at least one method", self.methods)
        require(0 < len(set(self.seeds)) == len(self.seeds), "seeds", "at least one, without repetitions", self.seeds)
        check_name(DATASETS, self.data.name)
        for name, method in self.methods.items():
            penalty = self.setting(name).training.rate_penalty
            fires = method.kind == "direct" or not penalty
            require(fires, f"training.rate_penalty of {name!r}, a method of kind {method.kind},", "0", penalty)
        for name in (each for claim in self.claims.better.items() for each in (claim[0], *claim[1])):
            require(name in self.methods, "a method in claims.better", f"one of {', '.join(self.methods)}", name)

    @property
    def baseline(self) -> str | None:
        """Name of the method that the others are compared with, if there is one."""
        plain = (name for name, method in self.methods.items() if method.kind == "direct" and not method.alpha)
        return next(plain, None)

    def setting(self, method: str) -> Recipe:
        """The recipe of one method, with the changes of that method in it.

        Raises:
            ValueError: a change of something that is no field, or to something that does not fit it.
        """
        options = self.methods[method]
        if not options.changes:
            return self if len(self.methods) == 1 else replace(self, methods={method: options}, claims=Claims())
        here, changed = asdict(self), dict[str, Any]()
        for name, value in options.changes.items():
            require(name in CHANGEABLE, f"methods.{method}.changes", f"of {', '.join(CHANGEABLE)}", name)
            if value is not None:
                merged = over(here, {name: value})[name]
                changed[name] = typed(type(getattr(self, name)), merged, f"methods.{method}.changes.{name}")
        return replace(self, methods={method: replace(options, changes={})}, claims=Claims(), **changed)

    def only(self, method: str, seed: int) -> Recipe:
        """Returns the recipe of a single run of this one.

        Raises:
            ValueError: the recipe has no such method.
        """
        if method not in self.methods:
            raise ValueError(f"unknown method {method!r}; recipe {self.name!r} has {', '.join(self.methods)}")
        return replace(self, methods={method: self.methods[method]}, seeds=[seed], claims=Claims())


CHANGEABLE = ("data", "model", "objective", "training")
"""The fields of a recipe that a method may change for itself."""


def _names_a_folder(name: str) -> bool:
    """Whether a name is one on every system, shows as it is, and is none of a study's own files."""
    plain = name.isprintable() and not any(sign in name for sign in '/\\:*?"<>|')
    return plain and 0 < len(name.encode()) <= LONGEST_NAME and name not in TAKEN


LONGEST_NAME = 100  # bytes: files are called after a study, with an ending
TAKEN = {".", "..", "study.yaml", "table.md", "table.csv", "differences.csv", "figure.png", "figure.svg", "report.html"}
