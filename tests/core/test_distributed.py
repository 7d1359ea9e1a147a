"""Two processes, each with half of the batch, against one process with all of it."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import tracegrad as tg

T, B, C = 4, 4, 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.neuron1 = nn.Linear(C, 6), tg.LIF()
        self.second, self.neuron2 = nn.Linear(6, 6), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron2(self.second(self.neuron1(self.first(x))))


class JellyNet(nn.Module):
    """SpikingJelly's layers and neurons around a residual, with norms in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = layer.Conv1d(1, 4, 3, padding=1, bias=False), layer.BatchNorm1d(4)
        self.second, self.norm2 = layer.Conv1d(4, 4, 3, padding=1, bias=False), layer.BatchNorm1d(4)
        self.neuron1, self.neuron2 = neuron.LIFNode(v_threshold=0.2), neuron.LIFNode(v_threshold=0.2)
        functional.set_step_mode(self, self.mode)
        self.eval()

    def step(self, x: Tensor) -> Tensor:
        s = self.neuron1(self.norm1(self.first(x)))
        return self.neuron2(self.norm2(self.second(s)) + s)

    mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(2)
        return (self.step(x) if self.mode == "m" else torch.stack([self.step(frame) for frame in x])).flatten(2)


class SteppedJellyNet(JellyNet):
    mode = "s"


NETS = {net.__name__: net for net in (Net, JellyNet, SteppedJellyNet)}


def scaled_gradients(net: str, x: Tensor, time: str, sync: bool, distributed: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = NETS[net]().double()
    tg.attach(model, x, spiking_input=True, alpha=0.5, time=time, sync=sync)
    trained = DistributedDataParallel(model) if distributed else model
    trained(x).square().sum((0, 2)).mean().backward()
    return {name: value.grad for name, value in model.named_parameters()}


def frames() -> Tensor:
    return (torch.rand(T, B, C, generator=torch.Generator().manual_seed(1)) < 0.5).double()


TIMES = ("per_step", "mean", "final")


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    half = frames()[:, rank * B // 2 : (rank + 1) * B // 2]
    for net, sync, time in itertools.product(NETS, (False, True), TIMES):
        torch.save(scaled_gradients(net, half, time, sync, True), f"{folder}/{net}-{sync}-{time}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("net", NETS)
def test_synchronised_processes_equal_one_and_others_the_mean_of_their_own(
    net: str, time: str, rank: int, folder: Path
) -> None:
    joint = scaled_gradients(net, frames(), time, False, False)
    halves = [scaled_gradients(net, half, time, False, False) for half in frames().chunk(2, 1)]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in joint}
    for sync, expected in ((True, joint), (False, mean)):
        got = torch.load(folder / f"{net}-{sync}-{time}-{rank}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-12, atol=1e-12, msg=f"sync={sync}: {name}")
    assert (joint["second.weight"] - mean["second.weight"]).abs().max() > 1e-6, "this would hold without sync as well"
