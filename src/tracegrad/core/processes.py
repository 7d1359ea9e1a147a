"""Adds up relations over the processes of a distributed training."""

from datetime import timedelta
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor

from tracegrad.core.equations.trace import at_least_float32
from tracegrad.core.torch_internals import after_backward_pass, backward_pass

TIMEOUT = timedelta(minutes=5)
"""How long a process waits for the others before it gives up."""


class ProcessSum:
    """Adds up raw relations over all processes, in a group of its own, so that no other collective can come between.

    Before each sum the processes compare what they are about to add, and after each backward pass that they have ended
    it, so that a layer or a number of steps that differs is an error on all of them, not a crash or a hang.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._backward_pass = -1
        self._is_distributed()

    def __deepcopy__(self, _: dict[int, Any]) -> "ProcessSum":
        return self  # a process group can't be copied

    def __call__(self, name: str, raw: list[Tensor]) -> list[Tensor]:
        """The sums of the raw relations of one call of a synapse.

        Raises:
            RuntimeError: another process adds up another synapse or another number of steps, or has stopped.
        """
        if not self._is_distributed():
            return raw
        total = torch.stack(raw).to(at_least_float32(raw[0]))
        if not torch.compiler.is_compiling():
            self.join(total.device)
            self._compare(f"{name} over {len(raw)} step(s)", total.device)
        dist.all_reduce(total, group=self._group)
        return list(total)

    def join(self, device: torch.device) -> None:
        """Takes part in the comparison that follows the backward pass which is running."""
        if self._is_distributed() and self._backward_pass != backward_pass():
            self._backward_pass = backward_pass()
            after_backward_pass(lambda: self._compare("the end of its backward pass", device))

    def _is_distributed(self) -> bool:
        """Whether there are other processes; their group is made once they are there."""
        if not (dist.is_available() and dist.is_initialized()):
            return False
        if self._group is None:
            self._group = dist.new_group(timeout=TIMEOUT)
        return True

    def _compare(self, what: str, device: torch.device) -> None:
        mine = torch.tensor([crc32(what.encode())], device=device)
        theirs = [torch.zeros_like(mine) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(theirs, mine, group=self._group)
        if all(torch.equal(mine, other) for other in theirs):
            return
        told: list[Any] = [None] * len(theirs)
        dist.all_gather_object(told, what, group=self._group)
        raise RuntimeError(
            "sync=True adds up the relations of all processes, but they are not at the same place: "
            + ", ".join(f"process {rank} at {place}" for rank, place in enumerate(told))
            + "; each must run the same layers over the same number of steps, or attach with sync=False"
        )
