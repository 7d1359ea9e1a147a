"""What two processes do in test_processes.py; each has half of the batch."""

import time as clock
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import tracegrad as tg
from attaching.models import ALPHA, FORMS, AtOnce, build
from reference import loss_of

TIMES = ("per_step", "mean", "final")
T, B = 4, 8
FIRST = B // 4
"""So many examples of each process are the first half of its own."""


def batch(rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Spikes and a mask, of one process or (None) of both: the first halves of both, then the second ones."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(T, B, 6, generator=generator) < 0.5).double()
    mask = torch.arange(T)[:, None] < torch.randint(1, T + 1, (B,), generator=generator)
    if rank is None:
        return x, mask
    own = [*range(rank * FIRST, (rank + 1) * FIRST), *range(B // 2 + rank * FIRST, B // 2 + (rank + 1) * FIRST)]
    return x[:, own], mask[:, own]


# The same on both: what one process gives for the joint batch


OPTIONS = {"all": {}, "half of the batch": {"relation_batch": 0.5}, "masked": {}}


def ddp(model: AtOnce) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp(model: AtOnce) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model.a, model.b, model.head):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


WRAPPERS = {"DDP": ddp, "FSDP2": fsdp}
CASES = [
    (form, wrapper, option, time) for form in FORMS for wrapper in WRAPPERS for option in OPTIONS for time in TIMES
]


def gradients(form: str, option: str, time: str, rank: int | None = None, wrapper: str = "") -> dict[str, Tensor]:
    """Of a loss that is a mean over the batch: of one process of two, or of one alone on all of it."""
    model, (x, mask) = build(FORMS[form]), batch(rank)
    sync = rank is not None
    a = tg.attach(model, x, spiking_input=True, alpha=ALPHA, time=time, sync=sync, **OPTIONS[option])
    trained = WRAPPERS[wrapper](model) if wrapper else model
    if option == "masked":
        with a.mask(mask):
            output = trained(x)
    else:
        output = trained(x)
    output.square().sum((0, 2)).mean().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: getattr(gradient, "full_tensor", lambda g=gradient: g)() for name, gradient in found.items()}


def same_on_both(rank: int, folder: str) -> None:
    """Saves the gradients of every case."""
    meet(rank, folder)
    for number, (form, wrapper, option, time) in enumerate(CASES):
        torch.save(gradients(form, option, time, rank, wrapper), Path(folder) / f"{number}-{rank}.pt")
    dist.destroy_process_group()


def meet(rank: int, folder: str, place: str = "meet") -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{place}", rank=rank, world_size=2)


# Another thing on each


class Skipping(nn.Module):
    """Three layers, each of which may be left out, and a classifier that is not scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0, self.b, self.n1 = nn.Linear(6, 6), tg.LIF(), nn.Linear(6, 6), tg.LIF()
        self.c, self.n2, self.head = nn.Linear(6, 6), tg.LIF(), nn.Linear(6, 2)
        self.skipped = ""

    def forward(self, x: Tensor) -> Tensor:
        for name, neuron in (("a", "n0"), ("b", "n1"), ("c", "n2")):
            if name not in self.skipped:
                x = self.get_submodule(neuron)(self.get_submodule(name)(x))
        return self.head(x)


def skip(layers: str, distributed: bool = True) -> Callable[[int], None]:
    def run(rank: int) -> None:
        torch.manual_seed(0)
        model, (x, _) = Skipping().double(), batch(rank)
        tg.attach(model, x, spiking_input=True, sync=True)
        model.skipped = layers if rank else ""
        trained = DistributedDataParallel(model, find_unused_parameters=True) if distributed else model
        loss_of(trained(x)).backward()

    return run


def other_steps(form: str, time: str) -> Callable[[int], None]:
    def run(rank: int) -> None:
        model, (x, _) = build(FORMS[form]), batch(rank)
        tg.attach(model, x, spiking_input=True, sync=True, time=time)
        trained = DistributedDataParallel(model)
        loss_of(trained(x[: T - rank])).backward()

    return run


def other_loss(rank: int) -> None:
    """One of them back-propagates through a part of the model alone."""
    model, (x, _) = build(), batch(rank)
    tg.attach(model, x, spiking_input=True, sync=True)
    kept: list[Tensor] = []
    model.n0.register_forward_hook(lambda _, __, spikes: kept.append(spikes))
    output = model(x)
    loss_of(kept[0] if rank else output).backward()


DIFFERENT: dict[str, Callable[[int], None]] = {
    **{f"{layers} skipped": skip(layers) for layers in ("a", "b", "c", "ab", "bc", "abc")},
    **{f"{layers} skipped, without DDP": skip(layers, False) for layers in ("a", "c", "abc")},
    "other T, per_step": other_steps("at once", "per_step"),
    **{f"other T step by step, {time}": other_steps("step by step", time) for time in TIMES},
    "other loss": other_loss,
}


def different_on_each(rank: int, folder: str) -> None:
    """Saves what each scenario raised, and how long it took."""
    for number, run in enumerate(DIFFERENT.values()):
        meet(rank, folder, f"meet-{number}")  # DDP is left in the middle of a backward pass
        begin, told = clock.monotonic(), "no error"
        try:
            run(rank)
        except RuntimeError as error:
            told = str(error)
        (Path(folder) / f"{number}-{rank}.txt").write_text(f"{clock.monotonic() - begin}\n{told}")
        dist.destroy_process_group()


# Another T, where that is no difference: R of "mean" and of "final" is one sum whatever T


def unequal_gradients(time: str, rank: int | None) -> dict[str, Tensor]:
    """One process has one step less: its examples are as if the joint batch were masked there."""
    model, (x, _) = build(), batch()
    rows = x.chunk(2, 1)
    a = tg.attach(model, x, spiking_input=True, alpha=ALPHA, time=time, sync=rank is not None)
    if rank is None:
        mask = torch.ones(T, B, dtype=torch.bool)
        mask[-1, B // 2 :] = False
        with a.mask(mask):
            output = model(x)
        weight = mask[..., None].to(output)
        (output.square() * weight).sum((0, 2)).mean().backward()
    else:
        trained = DistributedDataParallel(model)
        trained(rows[rank][: T - rank]).square().sum((0, 2)).mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def unequal_steps(rank: int, folder: str) -> None:
    meet(rank, folder)
    for time in ("mean", "final"):
        torch.save(unequal_gradients(time, rank), Path(folder) / f"{time}-{rank}.pt")
    dist.destroy_process_group()
