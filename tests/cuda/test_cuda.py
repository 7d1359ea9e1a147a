"""What a machine with a GPU can check, by one command: `pytest -m cuda`. The cases are those of the other tests."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from networks import CASES, Case
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import reference
import tracegrad as tg
from reference import assert_near, gradients

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: torch.cuda.is_available() is False"),
]
TIMES = ("per_step", "mean", "final")


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients(case: Case, time: str) -> None:
    """Those of the reference, which runs on the CPU, in float64."""
    model, x = case.network(tg.LIF), case.input()
    truth = reference.run(model, x, time=time)
    model, x = model.cuda(), x.cuda()
    tg.attach(model, x, spiking_input=not case.real, time=time)
    ours, input_gradient = gradients(model, x)
    for name, gradient in truth.gradients.items():
        assert_near(ours[name].cpu(), gradient, 1e-10, name)
    assert_near(input_gradient.cpu(), truth.input_gradient, 1e-10, "the input's gradient")


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_autocast(dtype: torch.dtype, time: str) -> None:
    """R of B = 128 images is finite and within 0.01 of float32's, given the same spikes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Unflatten(0, (4, -1)), tg.LIF()).cuda()
    with torch.no_grad():
        model[0].weight.copy_(torch.randint(-2, 3, model[0].weight.shape) / 4)
        model[0].bias.fill_(0.25)
    x = (torch.rand(4 * 128, 8, 32, 32) < 0.7).float().cuda()
    attachment = tg.attach(model, x[:8], spiking_input=True, time=time, record=True)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    found, spikes = [], []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cuda", dtype, enabled=enabled):
            spikes.append(model(x))
        scaler.scale(spikes[-1].float().mean()).backward()
        assert model[0].weight.grad.isfinite().all()
        found.append(attachment.relations["0"])
    assert torch.equal(spikes[0].float(), spikes[1].float()), "the case is void: spikes differ"
    assert (found[0] - found[1]).abs().max() <= 0.01


@pytest.mark.parametrize("time", TIMES)
def test_compiled_as_one_graph(time: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = tg.models.resnet(blocks=[1, 1], width=4).double().cuda(), torch.randn(2, 3, 8, 8).double().cuda()
    tg.attach(model, x, time=time, alpha=0.5)
    expected = {name: value.clone() for name, value in gradients(model, x)[0].items()}
    compiled = torch.compile(model, fullgraph=True)
    got, _ = gradients(compiled, x)
    for name, gradient in expected.items():
        assert_near(got[f"_orig_mod.{name}"], gradient, 1e-10, name)


def joint(x: torch.Tensor, distributed: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), tg.LIF(), nn.Linear(8, 8), tg.LIF()).double().to(x.device)
    tg.attach(model, x, spiking_input=True, alpha=0.5, sync=True)
    trained = DistributedDataParallel(model) if distributed else model
    trained(x).square().sum((0, 2)).mean().backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}


def work(rank: int, folder: str) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(joint(frames()[:, rank::2].to(device), True), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def frames() -> torch.Tensor:
    return (torch.rand(4, 4, 6, generator=torch.Generator().manual_seed(1)) < 0.5).double()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
def test_two_gpus_equal_one_on_the_joint_batch(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    expected = joint(frames(), False)
    for rank in (0, 1):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, gradient in expected.items():
            assert_near(got[name], gradient, 1e-10, name)
