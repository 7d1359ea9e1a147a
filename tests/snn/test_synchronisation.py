"""Norms of currents after `nn.SyncBatchNorm.convert_sync_batchnorm`: in one process, and in two."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core import compiled as compilation
from tracegrad.snn.fire_on import fire_on
from tracegrad.snn.norms import TimeMeanBatchNorm2d

T, B, C = 4, 5, 3
SPLIT = 2  # images of the first of two processes; the second has the others

convert = nn.SyncBatchNorm.convert_sync_batchnorm


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    made = {"tdbn": tg.TDBatchNorm2d, "time_mean": TimeMeanBatchNorm2d, "tebn": lambda c: tg.TEBatchNorm2d(c, T)}
    norm = made[kind](C).double()
    nn.init.normal_(norm.weight, 1, 0.2)
    nn.init.normal_(norm.bias, 0, 0.2)
    norm.running_mean.normal_()
    return norm


KINDS = ("tdbn", "time_mean", "tebn")


def currents() -> Tensor:
    x = torch.randn(T, B, C, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x * torch.tensor([1.0, 2.0, 5.0]).reshape(C, 1, 1) + torch.arange(B).reshape(B, 1, 1, 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_in_one_process_the_conversion_changes_nothing(kind: str, training: bool) -> None:
    norm, x = make(kind).train(training), currents()
    twin = copy.deepcopy(norm)
    expected = twin(x)
    converted = convert(nn.Sequential(norm))[0]
    torch.testing.assert_close(converted(x), expected, rtol=0, atol=0)
    assert list(converted.state_dict()) == list(twin.state_dict())
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(
            converted.state_dict()[name], value, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert dict(converted.named_parameters()).keys() == dict(twin.named_parameters()).keys()


def test_a_norm_that_is_the_whole_model() -> None:
    norm, x = make("tdbn"), currents()
    norm(x)
    norm.eval()
    right = norm(x)
    torch.testing.assert_close(convert(norm)(x), right, rtol=0, atol=0)


def test_other_norms_of_a_model_are_converted_as_usual() -> None:
    model = convert(nn.Sequential(nn.BatchNorm2d(C), make("tdbn")))
    assert isinstance(model[0], nn.SyncBatchNorm)
    assert isinstance(model[1], tg.TDBatchNorm2d)


def results(norm: nn.Module, part: slice, fused: bool) -> dict[str, Tensor]:
    """What a training step on some of the images computes."""
    x = currents()[:, part].permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).requires_grad_()
    y = fire_on(tg.LIF(surrogate="sigmoid"), (x, norm)) if fused else norm(x)
    weights = torch.randn(T, B, C, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (y * weights[:, part]).sum().backward()
    gradients = {f"gradient of {name}": value.grad for name, value in norm.named_parameters()}
    return {"output": y.detach(), "gradient of x": x.grad, **gradients, **dict(norm.named_buffers())}


CASES = [(kind, False) for kind in KINDS] + [("tdbn", True)]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.neuron1 = nn.Conv2d(C, 4, 3), tg.TDBatchNorm2d(4), tg.LIF()
        self.conv2, self.norm2, self.neuron2 = nn.Conv2d(4, 4, 3), tg.TDBatchNorm2d(4), tg.LIF()

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm, neuron in ((self.conv1, self.norm1, self.neuron1), (self.conv2, self.norm2, self.neuron2)):
            x = neuron(norm(conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])))
        return x


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    compilation.WORTH_COMPILING = 1
    compilation.has_compiler = lambda device: False
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    part = slice(0, SPLIT) if rank == 0 else slice(SPLIT, B)
    for kind, fused in CASES:
        for synchronised in (True, False):
            norm = convert(make(kind)) if synchronised else make(kind)
            torch.save(results(norm, part, fused), f"{folder}/{kind}-{fused}-{synchronised}-{rank}.pt")
    attachment = tg.attach(convert(Network()), torch.randn(T, 2, C, 6, 6))
    Path(f"{folder}/pairs-{rank}").write_text(str(attachment.pairs))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize(("kind", "fused"), CASES)
def test_two_processes_equal_one_on_the_joint_batch(kind: str, fused: bool, folder: Path) -> None:
    joint = results(make(kind), slice(None), fused)

    def of_processes(synchronised: bool) -> dict[str, Tensor]:
        first, second = (
            torch.load(folder / f"{kind}-{fused}-{synchronised}-{rank}.pt", weights_only=True) for rank in (0, 1)
        )
        found = {name: torch.cat([first[name], second[name]], 1) for name in ("output", "gradient of x")}
        found |= {n: first[n] + second[n] for n in first if n.startswith("gradient") and n not in found}
        if synchronised:
            for name in norm_buffers:
                torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        return found | {name: first[name] for name in norm_buffers}

    norm_buffers = ("running_mean", "running_var", "num_batches_tracked")
    got, apart = of_processes(True), of_processes(False)
    assert got.keys() == joint.keys()
    for name, value in joint.items():
        torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.allclose(apart["output"], joint["output"]), "this would hold without the conversion as well"


def test_synapses_pair_through_synchronised_norms(folder: Path) -> None:
    for rank in (0, 1):
        assert (folder / f"pairs-{rank}").read_text() == "[('conv2', 'neuron2')]"
