"""Two processes, each of which trains on half of a batch."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from contract.cases import TIMES, Case, grads
from contract.libraries import LIBRARIES
from contract.library import lay, over_time
from contract.models import ways_of

CASES = [
    Case(library, next(iter(library.neurons)), ways_of(library)[0], "convolutional")
    for library in LIBRARIES
    if "processes" not in library.skips
]
MODES = [(time, True) for time in TIMES] + [("per_step", False)]
"""Of time and of `sync`."""
BATCH = 4


def scaled_gradients(
    case: Case, x: Tensor, time: str, sync: bool = False, distributed: bool = False
) -> dict[str, Tensor]:
    """Of a loss that is a mean over the batch; the norms don't look at the batch."""
    model = case.build().eval()
    case.attach(model, alpha=1.0, time=time, sync=sync)
    model.begin()
    trained = DistributedDataParallel(model) if distributed else model
    outputs = over_time(trained(lay(x, case.layout)), case.layout, len(x))
    outputs.square().flatten(2).sum((0, 2)).mean().backward()
    return {name.removeprefix("module."): gradient for name, gradient in grads(model).items()}


def work(rank: int, folder: str) -> None:
    """Process `rank` of two: saves its gradients of every case, by `name_of`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for case in CASES:
        half = case.frames(batch=BATCH).chunk(2, 1)[rank]
        found = {
            (time, sync): scaled_gradients(case, half, time, sync, True) for time in TIMES for sync in (False, True)
        }
        torch.save(found, Path(folder) / name_of(case, rank))
    dist.destroy_process_group()


def name_of(case: Case, rank: int) -> str:
    """The file of one process's gradients."""
    return f"{case}-{rank}.pt"
