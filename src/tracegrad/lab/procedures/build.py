"""Builds what a recipe names: the network, and the scaling of its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.attaching.attachment import Attachment
from tracegrad.core.registry import Registry
from tracegrad.lab.data import Batches, Dataset
from tracegrad.lab.recipe.code import is_code
from tracegrad.lab.recipe.parts import Method, Model, Neuron
from tracegrad.lab.values import options_of
from tracegrad.snn.models import MODELS
from tracegrad.snn.neurons import LIF

GIVEN = ("num_classes", "in_channels", "time_steps", "neuron")  # by the data set and by fields of their own
MOST_PARAMETERS = 250_000_000
NEURONS: Registry[Callable[..., nn.Module]] = Registry("neuron")
NEURONS.register("lif", LIF)


@dataclass(frozen=True)
class Task:
    """The shape of a classification task, and images for what is fitted to data without training.

    Args:
        classes: how many.
        channels: of an image.
        image_size: its height and width; nothing for sequences.
        first_images: N -> the first N training images, [N, C, H, W], normalised and without augmentation, or frames
            [T, N, C, H, W].
        time_steps: T of frames and sequences; images have none.
    """

    classes: int
    channels: int
    image_size: tuple[int, ...]
    first_images: Callable[[int], Tensor]
    time_steps: int | None = None

    @property
    def example(self) -> Tensor:
        """Zeros shaped like a batch of one."""
        time = () if self.time_steps is None else (self.time_steps,)
        return torch.zeros(*time, 1, self.channels, *self.image_size)

    @classmethod
    def of(cls, dataset: Dataset) -> Task:
        """The task that a data set sets."""

        def first_images(count: int) -> Tensor:
            if not 1 <= count <= len(dataset.train):
                raise ValueError(f"images must be from 1 to the {len(dataset.train)} for training, not {count}")
            images, _ = next(iter(Batches(dataset.train, count, dataset=dataset, seed=0)))
            return images

        return cls(len(dataset.classes), dataset.channels, dataset.image_size, first_images, dataset.time_steps)


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
    build, own = MODELS[options.name], is_code(options.name)
    values: tuple[Any, ...] = (num_classes, in_channels, options.time_steps, neuron or _neurons(options.neuron))
    arguments = {name: value for name, value in zip(GIVEN, values, strict=True) if _takes(build, name)}
    arguments |= options_of(build, options.options, f"model.options; {options.name}", GIVEN)
    if not own:
        _check_size(build, arguments)
    model: Any = build(**arguments)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{options.name} must return a torch.nn.Module, not {type(model).__name__}")  # noqa: TRY004
    return model if own else model.to(memory_format=torch.channels_last)  # pyright: ignore - missing in PyTorch's stubs


def _check_size(build: Callable[..., nn.Module], arguments: dict[str, Any]) -> None:
    """Checks that a network can be meant, before it takes memory."""
    try:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in build(**arguments).parameters())
    except RuntimeError as error:  # more than can be counted
        raise ValueError(f"model.options make no network: {error}") from None
    if size > MOST_PARAMETERS:
        raise ValueError(f"model.options make a network of {size:,} parameters; the most are {MOST_PARAMETERS:,}")


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function takes an argument of that name."""
    parameters = signature(function).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _neurons(options: Neuron) -> Callable[[], nn.Module]:
    """What makes the neurons of a recipe, with those fields that it takes.

    Raises:
        ValueError: a field is set that it does not take.
    """
    make, values, defaults = NEURONS[options.name], asdict(options), asdict(Neuron())
    del values["name"], values["options"]
    given = {name: value for name, value in values.items() if _takes(make, name)}
    for name in values.keys() - given.keys():
        if values[name] != defaults[name]:
            raise ValueError(f"model.neuron.{name} is {values[name]!r}, but {options.name} takes no {name}")
    others = options_of(make, options.options, f"model.neuron.options; {options.name}", tuple(given))
    return partial(make, **given, **others)


def attach_method(
    method: Method, model: nn.Module, task: Task, *, seed: int = 0, sync: bool = False
) -> Attachment | None:
    """Attaches the gradient scaling of a method to a network; nothing for the baseline.

    Args:
        method: gives the options.
        model: the network.
        task: what it is to learn.
        seed: of the run: what a control draws at random differs between runs.
        sync: sum R over the processes that train together.

    Raises:
        ValueError: the method does not fit the network.
    """
    if method.alpha == 0:
        return None
    options: dict[str, Any] = {**method.attachment, "control_seed": method.control_seed + seed}
    return attach(model, task.example, sync=sync, **options)
