"""What every competitor is timed on: one network, one batch, one training step, one inference."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracegrad.core.attaching.acceleration import accelerate
from tracegrad_benchmark.rates import firing_rates, momentum, neurons_of, set_mean_rate

Precision = Literal["float32", "bf16"]

LEAK = 0.9
THRESHOLD = 0.5


@dataclass(frozen=True)
class Workload:
    """The network and the batch, the same for all competitors; by default ResNet20 of Park et al. (2023) on CIFAR.

    Args:
        batch: images in a batch.
        width: channels of the first stage.
        image_size: height and width of the images, in pixels.
        time_steps: T.
        blocks: of each stage.
        rate: the mean of the layers' firing rates, which thresholds are set for; None for that of a fresh network.
        device: "cpu" or "cuda".

    Raises:
        ValueError: a size below 1, a rate outside (0, 1), or a device that PyTorch does not find.
    """

    batch: int = 16
    width: int = 64
    image_size: int = 32
    time_steps: int = 4
    blocks: tuple[int, ...] = (3, 3, 3)
    rate: float | None = None
    device: str = "cpu"

    channels = 3
    classes = 10

    def __post_init__(self) -> None:
        for name in ("batch", "width", "image_size", "time_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if min(self.blocks, default=1) < 1:
            raise ValueError(f"every entry of blocks must be at least 1, not {self.blocks}")
        if self.rate is not None and not 0 < self.rate < 1:
            raise ValueError(f"rate must be in (0, 1), not {self.rate}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but PyTorch finds no CUDA GPU on this machine; use 'cpu'")

    def images(self) -> Tensor:
        """A batch of noise [B, C, H, W], the same in every call."""
        shape = self.batch, self.channels, self.image_size, self.image_size
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def targets(self) -> Tensor:
        """A class for each image, [B]."""
        return (torch.arange(self.batch) % self.classes).to(self.device)


@contextmanager
def _events(said: str) -> Generator[None]:
    """What TRACEGRAD_EVENTS says inside of the block."""
    before = os.environ.get("TRACEGRAD_EVENTS")
    os.environ["TRACEGRAD_EVENTS"] = said
    try:
        yield
    finally:
        os.environ.pop("TRACEGRAD_EVENTS")
        if before is not None:
            os.environ["TRACEGRAD_EVENTS"] = before


class Work(Protocol):
    """What is timed."""

    def rates(self, training: bool) -> list[float]:
        """The firing rates of its layers, in training or in inference; none where nothing fires."""
        ...

    def step(self) -> None:
        """One training step."""

    def infer(self) -> None:
        """One inference."""


class NetworkWork:
    """Trains and evaluates a network on a batch.

    Args:
        network: images [B, C, H, W] -> outputs [T, B, classes].
        workload: the batch, the firing rate and the device.
        precision: "bf16" by autocast.
        channels_last: memory layout of the images and the weights.
        events: "0" switches tracegrad's event kernels off.
        images: a batch to take in the place of the workload's.
    """

    def __init__(
        self,
        network: nn.Module,
        workload: Workload,
        precision: Precision,
        channels_last: bool,
        events: str,
        images: Tensor | None = None,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(workload.device).to(memory_format=layout)
        self.images = (workload.images() if images is None else images).contiguous(memory_format=layout)
        self.targets = workload.targets()
        # Momentum as the paper trains. So small a rate leaves the network as it is: its speed does not drift.
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        self._autocast = torch.autocast(workload.device, torch.bfloat16, enabled=precision == "bf16")
        self._events = events
        if workload.rate is not None and any(True for _ in neurons_of(network)):
            set_mean_rate(network, workload.rate, self._forward)
        # Inference fires as training does only with the statistics of these images.
        with momentum(network, 1.0):
            self._forward()

    def rates(self, training: bool) -> list[float]:
        """The firing rates of its layers, in training or in inference."""
        return firing_rates(self.network, self._forward if training else self.infer)

    def step(self) -> None:
        """Forward, cross entropy of the output's mean over time, backward, SGD with momentum."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with _events(self._events):
            with self._autocast:
                loss = F.cross_entropy(self.network(self.images).mean(0), self.targets)
            loss.backward()
        self.optimizer.step()

    def infer(self) -> None:
        """The outputs, without a graph."""
        self.network.eval()
        with _events(self._events), torch.inference_mode(), self._autocast:
            self.network(self.images)

    def _forward(self) -> None:
        self.network.train()
        with torch.no_grad(), self._autocast:
            self.network(self.images)


@dataclass(frozen=True)
class Competitor:
    """One way to do the work.

    Args:
        library: whose way.
        precision: "float32" or "bf16".
        work: builds what is timed.
        variant: of the library's way; "" for its first one.
        scaled: whether its gradients are scaled, which plays no part in inference.
    """

    library: str
    precision: Precision
    work: Callable[[Workload, Precision], Work]
    variant: str = ""
    scaled: bool = False

    @property
    def name(self) -> str:
        """Library, variant and precision."""
        return ", ".join(part for part in (self.library, self.variant, self.precision) if part)

    def build(self, workload: Workload) -> Work:
        """Builds what is timed, from the same random weights in every call."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.work(workload, self.precision)


def of_network(
    network: Callable[[Workload], nn.Module],
    channels_last: bool = False,
    accelerated: bool = False,
    events: Literal["auto", "0"] = "auto",
) -> Callable[[Workload, Precision], Work]:
    """The work of a competitor that is a network; `accelerated` by tracegrad's event kernels."""

    def work(workload: Workload, precision: Precision) -> Work:
        made = NetworkWork(network(workload), workload, precision, channels_last, events)
        if accelerated:
            accelerate(made.network, made.images[:1])
        return made

    return work
