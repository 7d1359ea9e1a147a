"""One training by several processes: on the GPUs of a machine, or on several machines.

Each of them runs the same command. All form the same batches and take a slice each; the first one writes, claims runs
and shows what happens, and the others follow its decisions.
"""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Value = TypeVar("Value")
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp64": "64-true"}


def start(precision: str, devices: int, nodes: int) -> Fabric:
    """Joins the processes of a training, once for each run; for a single one there is nothing to join.

    Args:
        precision: of the training.
        devices: processes on this machine, a GPU each where there are some.
        nodes: machines.

    Raises:
        ValueError: other processes were started than the recipe asks for.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its notes are not for our users
    wanted = devices * nodes
    started = os.environ.get("WORLD_SIZE") or (os.environ.get("SLURM_NTASKS") if wanted > 1 else None)
    if int(started or 1) not in (1, wanted):
        raise ValueError(
            f"there are {started} processes, and training.devices times training.nodes is {wanted}; start as many, "
            f"such as by torchrun --nproc-per-node {devices} --nnodes {nodes}"
        )
    alone: Any = LightningEnvironment() if wanted == 1 else None  # tasks of Slurm may share a study
    strategy = "ddp" if wanted > 1 else "auto"
    precise = PRECISIONS[precision]
    fabric = Fabric(strategy=strategy, devices=devices, num_nodes=nodes, precision=precise, plugins=alone)
    if wanted > 1:
        joined_before = _joined()
        fabric.launch()
        if not joined_before:
            atexit.register(dist.destroy_process_group)
    return fabric


def world_size() -> int:
    """How many processes take part."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and decides."""
    return rank() == 0


def agree(value: Value) -> Value:
    """The value of the first process, for all of them; each waits for it."""
    if not _joined():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def slice_of(batch: Tensor, dim: int = 0) -> Tensor:
    """The part of a batch that this process takes; `dim` is the batch's.

    Raises:
        ValueError: there are fewer images than processes.
    """
    if batch.shape[dim] < world_size():
        raise ValueError(f"a batch of {batch.shape[dim]} images is too small for {world_size()} processes")
    return batch.tensor_split(world_size(), dim)[rank()]


def total(values: Tensor) -> Tensor:
    """The sum of the values of all processes."""
    if _joined():
        values = values.clone()
        dist.all_reduce(values)
    return values


def synchronised(model: nn.Module) -> nn.Module:
    """The model as all processes train it: gradients are means over them, norms take the joint batch."""
    if world_size() == 1:
        return model
    joint = nn.parallel.DistributedDataParallel(model)  # on CPUs it takes no SyncBatchNorm, so that comes second
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return joint


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
