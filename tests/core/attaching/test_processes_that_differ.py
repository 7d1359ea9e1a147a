"""sync=True in two processes that do not do the same: an error on both, not an abort or a hang."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import tracegrad as tg


class Net(nn.Module):
    """The second layer may be skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.neuron1 = nn.Linear(6, 6), tg.LIF()
        self.second, self.neuron2 = nn.Linear(6, 6), tg.LIF()
        self.skips = False

    def forward(self, x: Tensor) -> Tensor:
        s = self.neuron1(self.first(x))
        return s if self.skips else self.neuron2(self.second(s))


def work(rank: int, folder: str, difference: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, x = Net(), (torch.rand(5, 3, 6) < 0.6).float()
    tg.attach(model, x, spiking_input=True, sync=True)
    if rank == 1 and difference == "steps":
        x = x[:4]
    model.skips = rank == 1 and difference == "layers"
    try:
        model(x).sum().backward()
        told = "no error"
    except RuntimeError as error:
        told = str(error)
    Path(folder, f"{rank}.txt").write_text(told)
    dist.destroy_process_group()


@pytest.mark.parametrize("difference", ["steps", "layers"])
def test_both_processes_get_the_error(difference: str, tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path), difference), nprocs=2)
    for rank in (0, 1):
        told = (tmp_path / f"{rank}.txt").read_text()
        assert "sync=True" in told, f"process {rank}: {told}"
