"""Builds what a recipe names: the network, and the scaling of its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.attaching.attachment import Attachment
from tracegrad.lab.data import Dataset
from tracegrad.lab.procedures.task import Task
from tracegrad.lab.recipe.fields import Method, Model
from tracegrad.lab.recipe.values import options_of
from tracegrad.snn.models import MODELS
from tracegrad.snn.neurons import LIF

GIVEN = ("num_classes", "in_channels", "time_steps", "neuron")  # by the data set and by fields of their own


def build_model(
    options: Model, num_classes: int, in_channels: int, neuron: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Builds the network of a recipe.

    Its weights are drawn from torch's global random generator, and lie in memory channels last: convolutions and
    compiled neurons are fastest so.

    Args:
        options: the recipe's.
        num_classes: of the data.
        in_channels: of the images.
        neuron: what makes a neuron; by default the neurons of the recipe.

    Raises:
        ValueError: an option that the network does not have, or a value that does not fit it.
    """
    model = MODELS[options.name](
        num_classes,
        in_channels,
        neuron=neuron or partial(LIF, **asdict(options.neuron)),
        **{"time_steps": options.time_steps, **_own_options(options)},
    )
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in PyTorch's stubs


def _own_options(options: Model) -> dict[str, Any]:
    """The network's further options, checked against the signature of its builder."""
    return options_of(MODELS[options.name], options.options, f"model.options; {options.name}", GIVEN)


def attach_method(method: Method, model: nn.Module, task: Task | Dataset) -> Attachment | None:
    """Attaches the gradient scaling of a method to a network; nothing for the baseline.

    Raises:
        ValueError: the method does not fit the network.
    """
    if method.alpha == 0:
        return None
    return attach(model, torch.zeros(1, task.channels, *task.image_size), **method.attachment)
