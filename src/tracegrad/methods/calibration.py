"""Conversion of a trained ReLU network with calibration (Li et al. 2021).

The layers are converted one by one in the order of execution. With a the activations of a layer's ReLU on some images,
the ReLU becomes an integrate-and-fire neuron with soft reset and spikes of height v_th, driven by the layers before it,
which are converted already:

    v_th      = the value of max(a) * (1 - 0.01 i), i = 0..94, with the least mean squared error of a against
                floor(clamp(a T / v_th, 0, T)) * v_th / T
    current   + 0.5 v_th / T at every step
    light:    current += mean per channel of (a - mean_t spikes)
    advanced: v(-1) = T * mean over the images of (a - mean_t spikes), for each neuron

The paper folds batch norms into convolutions and corrects the convolutions' biases. In evaluation mode a batch norm is
affine, so adding the correction to the neuron's current is the same; the neuron keeps it, and norms and convolutions
stay as they are.
"""

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tracegrad.methods.conversion import Folded, check_time_steps, knows_time, over_time, replace
from tracegrad.methods.linearity import check_linear, is_exactly
from tracegrad.snn.kernels import SummedCurrents
from tracegrad.snn.neurons import IF

Mode = Literal["light", "advanced"]


class CalibratedIF(IF):
    """Integrate-and-fire neurons with soft reset, spikes of height v_th, and a constant current added at every step.

    Args:
        threshold: v_th, one number.
        time_steps: T; the added current starts at 0.5 v_th / T.
        channels: C of [T, B, C, ...]; the added current has one value per channel.
    """

    bias: Tensor

    def __init__(self, threshold: Tensor, time_steps: int, channels: int) -> None:
        super().__init__(threshold.clone(), reset="soft", initial=torch.zeros_like(threshold), height=threshold.clone())
        self.register_buffer("bias", (0.5 * threshold / time_steps).repeat(channels))

    def forward(self, currents: Tensor | SummedCurrents) -> Tensor:
        """Currents [T, B, C, ...] to spikes of the same shape."""
        assert isinstance(currents, Tensor)  # noqa: S101 - only plain LIF and IF get sums
        return super().forward(currents + self.bias.reshape(-1, *(1 for _ in currents.shape[3:])))


def calibrate(network: nn.Module, images: Iterable[Tensor], time_steps: int, mode: Mode = "light") -> nn.Module:
    """A spiking copy of a trained ReLU network, calibrated on images, in evaluation mode.

    The mean over time of the copy's outputs approximates the network's output. Max pools stay and take the maximum of
    the spikes at each step, which is not the maximum of the rates: networks with average pools convert best.

    Args:
        network: its activations are `nn.ReLU` modules, each called once; between them everything is affine, apart from
            max pools. The models of this package show an image for T steps themselves; other networks take images
            [B, C, ...] and are `Repeated`.
        images: batches [B, C, H, W] of training images, the more the better; all are held in memory, with the
            activations of one layer at a time.
        time_steps: T, which the copy is made for.
        mode: "light" corrects the current of each channel, "advanced" the starting membrane of each neuron, which
            binds the copy to the images' size.

    Returns:
        The copy: images [B, C, H, W] -> outputs [T, B, ...].

    Raises:
        ValueError: time_steps below 1, an unknown mode, no images, a ReLU that is called more than once, no ReLU, or
            other activations: functions such as `F.relu`, and other modules. The error names the module whose forward
            computes them.
    """
    check_time_steps(time_steps)
    if mode not in get_args(Mode):
        raise ValueError(f"unknown mode {mode!r}; the known ones are {', '.join(map(repr, get_args(Mode)))}")
    batches = [batch for batch in images if len(batch)]
    if not batches:
        raise ValueError("calibration needs images, and there are none")
    source = copy.deepcopy(network).eval()
    converted = copy.deepcopy(source)
    spiking = over_time(converted, time_steps)
    with torch.no_grad():
        for name in _layers(source, batches[0]):
            activations = [_of_images(source, name, batch) for batch in batches]
            neuron = CalibratedIF(best_threshold(activations, time_steps), time_steps, activations[0].shape[1])
            replacement = neuron if knows_time(source) else Folded(neuron, time_steps)
            replace(spiking, converted.get_submodule(name), replacement)
            rates = [_until(spiking, neuron, batch).mean(0) for batch in batches]
            _correct(neuron, activations, rates, time_steps, mode)
    return spiking


def best_threshold(activations: Sequence[Tensor], time_steps: int) -> Tensor:
    """v_th of a layer: the value on the grid whose T levels are nearest to the activations; 1 for a silent layer.

    Args:
        activations: of the ReLU, any shape, not negative.
        time_steps: T.

    Returns:
        One number, max(a) * (1 - 0.01 i) for an i in 0..94.
    """
    active = torch.cat([activation[activation > 0] for activation in activations])  # zeros are exact at any v_th
    if not active.numel():
        return torch.ones((), dtype=active.dtype, device=active.device)
    grid = active.max() * (1 - 0.01 * torch.arange(95, device=active.device, dtype=active.dtype))

    def error(threshold: Tensor) -> Tensor:
        levels = (active * (time_steps / threshold)).clamp_(0, time_steps).floor_()
        return levels.mul_(threshold / time_steps).sub_(active).square_().mean(dtype=torch.float64)

    return grid[torch.stack([error(threshold) for threshold in grid]).argmin()]


def _correct(
    neuron: CalibratedIF, activations: Sequence[Tensor], rates: Sequence[Tensor], time_steps: int, mode: Mode
) -> None:
    missing = sum((a - r).sum(0) for a, r in zip(activations, rates, strict=True))
    missing = torch.as_tensor(missing) / sum(len(activation) for activation in activations)
    if mode == "light":
        neuron.bias += missing.flatten(1).mean(1) if missing.dim() > 1 else missing
    else:
        neuron.initial = time_steps * missing


def _layers(source: nn.Module, images: Tensor) -> list[str]:
    """The names of the ReLUs, in the order of their calls."""
    check_linear(source, images[:1], (nn.ReLU,), allowed="max_pool")
    names = {module: name for name, module in source.named_modules() if is_exactly(module, (nn.ReLU,))}
    called: list[str] = []

    def call(name: str, *_: Any) -> None:
        if name in called:
            raise ValueError(f"{name!r} (ReLU) is called more than once: give every layer an nn.ReLU module of its own")
        called.append(name)

    handles = [relu.register_forward_hook(partial(call, name)) for relu, name in names.items()]
    try:
        source(images)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise ValueError(f"{type(source).__name__} calls no nn.ReLU module; calibrate a trained ReLU network")
    return called


def _of_images(source: nn.Module, name: str, images: Tensor) -> Tensor:
    """The activations [B, C, ...] of a ReLU for some images."""
    output = _until(source, source.get_submodule(name), images)
    return output.mean(0) if knows_time(source) else output


class _Reached(Exception):  # noqa: N818 - ends a forward pass and is no error
    def __init__(self, output: Tensor) -> None:
        self.output = output


def _until(network: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """The output of a layer; nothing after it is computed."""

    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        raise _Reached(output)

    handle = layer.register_forward_hook(stop)
    try:
        network(images)
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise AssertionError("a layer that was called is called again")
