"""Models inside of other things: DataParallel, DDP, FSDP2, TorchScript, hooks that were there before."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from architecture import assert_equal_gradients
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

import tracegrad as tg
from attaching.models import FORMS, AtOnce, attach, build, frames, gradients, scaled_gradients

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])

# DataParallel: a copy in each thread


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.Sequential(nn.DataParallel(model))])
def test_data_parallel_is_refused_by_name(wrap: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"nn\.DataParallel .*DistributedDataParallel"):
        attach(wrap(build()))


def replicas_of(model: nn.Module) -> nn.Module:
    """What nn.DataParallel makes of a model for each of its GPUs."""
    copies = {name: module._replicate_for_data_parallel() for name, module in model.named_modules()}
    for name, module in model.named_modules():
        for child, _ in module.named_children():
            copies[name]._modules[child] = copies[f"{name}.{child}" if name else child]
        for parameter, value in module._parameters.items():
            setattr(copies[name], parameter, None if value is None else value.clone())
    return copies[""]


@every_form
@pytest.mark.parametrize("outside", [False, True], ids=["itself", "around it"])
def test_a_replica_of_an_attached_model_is_refused_by_name(form: type[AtOnce], outside: bool) -> None:
    model = build(form)
    expected = replicas_of(model)(frames())
    assert torch.equal(expected, model(frames())), "the replica computes something else"
    a = attach(model)
    wrapped = nn.Sequential(model) if outside else model
    with pytest.raises(RuntimeError, match=r"nn\.DataParallel .*DistributedDataParallel, or detach\(\) first"):
        replicas_of(wrapped)(frames())
    a.detach()
    assert torch.equal(replicas_of(wrapped)(frames()), expected)


# Distributed training, one process


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@every_form
@pytest.mark.parametrize("sync", [False, True])
def test_ddp_around_an_attached_model_and_the_reverse(form: type[AtOnce], sync: bool) -> None:
    expected = scaled_gradients(form)
    model = build(form)
    attach(model, sync=sync)
    assert_equal_gradients(gradients(DistributedDataParallel(model)), expected, 1e-12)
    wrapped = DistributedDataParallel(build(form))
    assert attach(wrapped, sync=sync).pairs == [("module.a", "module.n0"), ("module.b", "module.n1")]
    assert_equal_gradients(gradients(wrapped), expected, 1e-12)


def shard(model: AtOnce) -> FSDPModule:
    mesh = init_device_mesh("cpu", (1,))
    for layer in (model.a, model.b, model.head):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")  # of what F.linear returns
@pytest.mark.usefixtures("one_process")
@every_form
@every_time
@pytest.mark.parametrize("order", ["sharded first", "attached first"])
def test_fsdp2(form: type[AtOnce], time: str, order: str) -> None:
    """Its nodes in the graph, each of which hands on many tensors, are looked through."""
    model = build(form)
    if order == "sharded first":
        shard(model)
    a = attach(model, time=time)
    assert a.pairs == [("a", "n0"), ("b", "n1")], str(a)
    if order == "attached first":
        shard(model)
    found = {name: gradient.full_tensor() for name, gradient in gradients(model).items()}
    assert_equal_gradients(found, scaled_gradients(form, time=time), 1e-12)


# Compiled before


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("part", ["", "b", "n1"])
def test_what_is_compiled_before_is_refused_by_name(part: str, in_place: bool) -> None:
    """A compiled part would hide its layers from pairing."""
    model = build()
    if in_place:
        model.get_submodule(part).compile()
    elif part:
        setattr(model, part, torch.compile(model.get_submodule(part)))
    else:
        model = torch.compile(model)
    with pytest.raises(ValueError, match=f"^{part or 'the model'} is compiled already: attach to the plain model"):
        attach(model)


# TorchScript


class Step(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)


def scriptable() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), Step(), nn.Linear(8, 7), Step())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripting_says_to_detach_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tg.register_neuron(Step)
    model, x = scriptable(), frames().float()
    a = tg.attach(model, x, spiking_input=True)
    for part in (model, nn.Sequential(model), model[0], model[1]):
        with pytest.raises(AttributeError, match=r"can't be scripted: call detach\(\) first"):
            torch.jit.script(part)
    a.detach()
    assert torch.equal(torch.jit.script(model)(x), model(x))


def test_what_stands_in_a_model_has_the_attributes_that_python_gives_it() -> None:
    model = build()
    attach(model)
    hook = next(iter(model._forward_pre_hooks.values()))
    assert not hasattr(hook, "__name__")
    assert not hasattr(hook, "nothing")
    with pytest.raises(AttributeError, match="'Begin' object has no attribute 'nothing'"):
        hook.nothing  # noqa: B018


# Hooks that were there before


def full_backward_hooks(model: nn.Module, seen: list) -> None:
    for module in model.modules():
        module.register_full_backward_hook(lambda _, gradients, __: seen.append(gradients))


def full_backward_pre_hooks(model: nn.Module, seen: list) -> None:
    for module in model.modules():
        module.register_full_backward_pre_hook(lambda _, gradients: seen.append(gradients))


@every_form
@every_time
@pytest.mark.parametrize("hooks", [full_backward_hooks, full_backward_pre_hooks])
def test_backward_hooks_of_others_are_looked_through_and_called(
    form: type[AtOnce], time: str, hooks: Callable[[nn.Module, list], None]
) -> None:
    model, seen = build(form), []
    hooks(model, seen)
    gradients(model)
    calls = len(seen)
    a = attach(model, time=time)
    assert a.pairs == [("a", "n0"), ("b", "n1")], str(a)
    assert len(seen) == calls, "attach ran a backward pass"
    assert_equal_gradients(gradients(model), scaled_gradients(form, time=time), 1e-12)
    assert len(seen) == 2 * calls, "not every hook was called again"
    a.detach()
    assert_equal_gradients(gradients(model), gradients(build(form)), 1e-12)
