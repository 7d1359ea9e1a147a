"""How many spikes `tg.accelerate` moves by rounding: run it with `python benchmarks/accelerated_spikes.py`.

SpikingJelly's own ResNet20 (width 64, T = 4), in step modes "m" and "s", float32 and bf16, as it is and with thresholds
set for a mean firing rate of 16.5 %. Counted are the spikes of the first layer behind an accelerated convolution,
whose inputs are equal, and those of all layers, where a difference has consequences; as the yardstick the same network
with PyTorch's other memory layout, whose dense convolutions add up in another order.
"""

import copy

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from tracegrad_benchmark.competitors.spikingjelly import SpikingJellyNetwork
from tracegrad_benchmark.rates import of_each_layer, set_mean_rate
from tracegrad_benchmark.workload import Workload

import tracegrad as tg

WORKLOAD = Workload(batch=4)


class StepByStep(nn.Module):
    """The network in step mode "s"."""

    def __init__(self, network: SpikingJellyNetwork) -> None:
        super().__init__()
        self.inner = network
        functional.set_step_mode(self, "s")

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at every step."""
        functional.reset_net(self)
        current = self.inner.network.stem(images)
        return torch.stack([self.inner.network.body(current) for _ in range(self.inner.time_steps)])


def fired(network: nn.Module, images: Tensor, half: bool) -> list[Tensor]:
    """All spikes of each layer of neurons."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        calls = of_each_layer(network, lambda: network(images), lambda spikes: spikes > 0)
    return [steps.flatten() for steps in calls]


def differing(ours: list[Tensor], theirs: list[Tensor]) -> tuple[str, str]:
    """The part of the spikes that differ: behind the first accelerated convolution, and everywhere."""
    first = (ours[1] != theirs[1]).float().mean()
    everywhere = torch.cat([a != b for a, b in zip(ours, theirs, strict=True)]).float().mean()
    return f"{100 * first:.4f}", f"{100 * everywhere:.3f}"


def main() -> None:
    """Prints a table."""
    torch.manual_seed(0)
    images = WORKLOAD.images()
    columns = ["step mode", "precision", "mean rate (%)", "differ, first layer (%)", "all (%)"]
    print(f"| {' | '.join([*columns, 'other layout, first layer (%)', 'all (%)'])} |")
    print("|---|---|---|---|---|---|---|")
    for mode in "ms":
        for half in (False, True):
            for rate in (None, 0.165):
                network = SpikingJellyNetwork(WORKLOAD)
                model: nn.Module = network if mode == "m" else StepByStep(network)
                if rate is not None:
                    set_mean_rate(model, rate, lambda model=model: model(images))
                accelerated, other = copy.deepcopy(model), copy.deepcopy(model).to(memory_format=torch.channels_last)
                tg.accelerate(accelerated, images[:1])
                plain = fired(model, images, half)
                ours = differing(fired(accelerated, images, half), plain)
                layout = differing(fired(other, images.contiguous(memory_format=torch.channels_last), half), plain)
                mean = 100 * torch.stack([layer.float().mean() for layer in plain]).mean()
                precision = "bf16" if half else "float32"
                print(f"| {mode} | {precision} | {mean:.1f} | {' | '.join((*ours, *layout))} |", flush=True)


if __name__ == "__main__":
    main()
