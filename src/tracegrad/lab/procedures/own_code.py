"""What a recipe names as code joins what is registered, under that name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tracegrad.core.equations.normalization import NORMALIZATIONS, register_normalization
from tracegrad.core.equations.relation import RELATIONS, register_relation
from tracegrad.core.equations.scaling import SCALINGS, register_scaling
from tracegrad.core.registry import Registry
from tracegrad.lab.data import DATASETS, register_dataset
from tracegrad.lab.procedures import PROCEDURES
from tracegrad.lab.procedures.build import NEURONS
from tracegrad.lab.recipe.code import is_code, run_code
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.methods.objectives import OBJECTIVES, register_objective
from tracegrad.snn.models import MODELS
from tracegrad.snn.norms import NORMS, register_norm
from tracegrad.snn.surrogate import SURROGATES, register_surrogate

Place = tuple[Any, Registry[Any], Callable[[str, Any], object]]
"""A name in a recipe, where such names are looked up, and what registers one there."""


def register_code(recipe: Recipe) -> dict[str, str]:
    """Imports what a recipe names as `package.module:name`, and registers it; does nothing for other recipes.

    Returns:
        The SHA-256 of each module's file, by the name in the recipe.

    Raises:
        ValueError: there is no such code, it cannot be imported, or it is something else.
    """
    digests: dict[str, str] = {}
    for method in recipe.methods:
        for name, registry, register in _places(recipe.setting(method), method):
            if not is_code(name):
                continue
            found, digests[name] = run_code(name, recipe.code)
            if name in registry:
                continue
            try:
                if registry is not RELATIONS and not callable(found):
                    raise TypeError(f"it is {type(found).__name__}, nothing that can be called")  # noqa: TRY301
                register(name, found)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from error
    return digests


def _places(setting: Recipe, method: str) -> Iterator[Place]:
    model, options = setting.model, setting.methods[method]
    yield setting.data.name, DATASETS, lambda name, found: register_dataset(name)(found)
    yield setting.objective, OBJECTIVES, lambda name, found: register_objective(name)(found)
    yield model.name, MODELS, MODELS.register
    yield model.options.get("norm"), NORMS, lambda name, found: register_norm(name)(found)
    yield model.neuron.name, NEURONS, NEURONS.register
    yield model.neuron.surrogate, SURROGATES, lambda name, found: register_surrogate(name)(found)
    yield options.kind, PROCEDURES, PROCEDURES.register
    yield options.relation, RELATIONS, register_relation
    yield options.normalize, NORMALIZATIONS, lambda name, found: register_normalization(name)(found)
    yield options.scaling, SCALINGS, lambda name, found: register_scaling(name)(found)
