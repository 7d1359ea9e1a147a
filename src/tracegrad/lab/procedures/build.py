"""Builds what a recipe names: the network, and the scaling of its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.attaching.attachment import Attachment
from tracegrad.core.registry import Registry
from tracegrad.lab.data import Dataset, batch_dim
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.recipe.code import is_code
from tracegrad.lab.recipe.parts import Method, Model, Neuron
from tracegrad.lab.recipe.values import options_of
from tracegrad.snn.models import MODELS
from tracegrad.snn.neurons import LIF

GIVEN = ("num_classes", "in_channels", "time_steps", "neuron")  # by the data set and by fields of their own

MOST_PARAMETERS = 250_000_000

NEURONS: Registry[Callable[..., nn.Module]] = Registry("neuron")
NEURONS.register("lif", LIF)


def build_model(
    options: Model, num_classes: int, in_channels: int, neuron: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Builds the network of a recipe.

    Its weights are drawn from torch's global random generator. Those of our networks lie in memory channels last:
    convolutions and compiled neurons are fastest so.

    Args:
        options: the recipe's.
        num_classes: of the data.
        in_channels: of the images.
        neuron: what makes a neuron; by default the neurons of the recipe.

    Raises:
        ValueError: an option that the network does not have, or a value that does not fit it; one that is no module.
    """
    build, what = MODELS[options.name], f"model.options; {options.name}"
    known = {
        "num_classes": num_classes,
        "in_channels": in_channels,
        "time_steps": options.time_steps,
        "neuron": neuron or _neurons(options.neuron),
    }
    arguments: dict[str, Any] = {name: value for name, value in known.items() if is_keyword(build, name)}
    arguments |= options_of(build, options.options, what, GIVEN)
    if not is_code(options.name):
        _check_size(build, arguments)
    model: Any = build(**arguments)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{options.name} must return a torch.nn.Module, not {type(model).__name__}")  # noqa: TRY004
    if is_code(options.name):
        return model
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in PyTorch's stubs


def _check_size(build: Callable[..., nn.Module], arguments: dict[str, Any]) -> None:
    """Checks that a network can be meant, before it takes memory."""
    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in build(**arguments).parameters())
    except RuntimeError as error:  # more than can be counted
        raise ValueError(f"model.options make no network: {error}") from None
    if size > MOST_PARAMETERS:
        raise ValueError(f"model.options make a network of {size:,} parameters; the most are {MOST_PARAMETERS:,}")


def is_keyword(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of that name."""
    parameters = signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _neurons(options: Neuron) -> Callable[[], nn.Module]:
    """What makes the neurons of a recipe, with those fields that it takes.

    Raises:
        ValueError: a field is set that it does not take.
    """
    make = NEURONS[options.name]
    values = {each.name: (getattr(options, each.name), each.default) for each in fields(options)}
    del values["name"], values["options"]
    for name, (value, default) in values.items():
        if value != default and not is_keyword(make, name):
            raise ValueError(f"model.neuron.{name} is {value!r}, but {options.name} takes no {name}")
    given = {name: value for name, (value, _) in values.items() if is_keyword(make, name)}
    return partial(
        make, **given, **options_of(make, options.options, f"model.neuron.options; {options.name}", tuple(given))
    )


def check_outputs(model: nn.Module, options: Model, images: torch.Tensor, classes: int) -> None:
    """Checks what a network of one's own makes of images [B, C, H, W]: outputs [T, B, classes].

    Raises:
        ValueError: something else.
    """
    if not is_code(options.name):
        return
    with torch.no_grad():
        outputs: Any = model(images)
    right = [options.time_steps, images.shape[batch_dim(images)], classes]
    shape = list(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if shape != right:
        raise ValueError(
            f"{options.name} makes {shape} of images {list(images.shape)}; right is [T, B, classes], {right}"
        )


def attach_method(method: Method, model: nn.Module, task: Task | Dataset, *, sync: bool = False) -> Attachment | None:
    """Attaches the gradient scaling of a method to a network; nothing for the baseline.

    Args:
        method: gives the options.
        model: the network.
        task: what it is to learn.
        sync: sum R over the processes that train together.

    Raises:
        ValueError: the method does not fit the network.
    """
    if method.alpha == 0:
        return None
    task = Task.of(task) if isinstance(task, Dataset) else task
    return attach(model, task.example, sync=sync, **method.attachment)
