"""The bound: what the network's convolutions cost, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from tracegrad_benchmark.competitors.tracegrad import network
from tracegrad_benchmark.workload import Competitor, Precision, Workload

LIBRARY = "convolutions alone"


@dataclass(frozen=True)
class Convolution:
    """One convolution of the network, and what it works on.

    Args:
        input: spikes, or the images at the stem.
        weight: of the convolution.
        gradient: dL/dy, noise in the shape of the output.
        stride: in pixels.
        padding: in pixels.
        needs_input_gradient: False at the stem alone.
    """

    input: Tensor
    weight: Tensor
    gradient: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    needs_input_gradient: bool

    def forward(self) -> Tensor:
        """The current."""
        return torch.conv2d(self.input, self.weight, None, self.stride, self.padding)

    def backward(self) -> tuple[Tensor | None, ...]:
        """Gradients of input and weight: what autograd calls, without autograd."""
        needed = [self.needs_input_gradient, True, False]
        geometry: Any = (self.stride, self.padding, (1, 1), False, (0, 0), 1)
        return torch.ops.aten.convolution_backward(self.gradient, self.input, self.weight, None, *geometry, needed)


class ConvolutionsWork:
    """A bare loop over the network's convolutions on random spikes, in channels-last.

    The stem works on B images, as what it sees is the same at each step, and passes no gradient on.

    Args:
        workload: the network and the batch.
        precision: of inputs, weights and gradients, cast beforehand.
    """

    def __init__(self, workload: Workload, precision: Precision) -> None:
        self.convolutions: list[Convolution] = []
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32

        def prepare(tensor: Tensor) -> Tensor:
            return tensor.to(workload.device, dtype).contiguous(memory_format=torch.channels_last)

        for layer, before, after in convolutions_of(network(workload), workload.images().cpu()):
            stem = not self.convolutions
            spikes = (torch.rand(before) < 0.2).float()
            self.convolutions.append(
                Convolution(
                    prepare(workload.images() if stem else spikes),
                    prepare(layer.weight.detach()),
                    prepare(torch.randn(after)),
                    layer.stride,
                    tuple(map(int, layer.padding)),
                    needs_input_gradient=not stem,
                )
            )

    def rates(self, training: bool) -> list[float]:
        """None: dense convolutions do not care."""
        return []

    def step(self) -> None:
        """Forward through all of them, then backward in the reverse order."""
        with torch.no_grad():
            for convolution in self.convolutions:
                convolution.forward()
            for convolution in reversed(self.convolutions):
                convolution.backward()

    def infer(self) -> None:
        """Forward alone."""
        with torch.inference_mode():
            for convolution in self.convolutions:
                convolution.forward()


def convolutions_of(network: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, torch.Size, torch.Size]]:
    """The convolutions in the order in which they run, each with the shapes of its input and output."""
    found: list[tuple[nn.Conv2d, torch.Size, torch.Size]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((cast(nn.Conv2d, layer), inputs[0].shape, output.shape))

    hooks = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


CONTESTANTS = (
    Competitor(LIBRARY, "float32", ConvolutionsWork),
    Competitor(LIBRARY, "bf16", ConvolutionsWork),
)
