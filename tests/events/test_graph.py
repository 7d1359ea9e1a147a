"""The operators in PyTorch's eyes, and in compiled graphs."""

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.events.convolution import convolve_spikes as convolve
from tracegrad.events.graph import convolve_spikes, correlate_spikes
from tracegrad.events.window import Window

SPIKES = (torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.2).float()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # opcheck's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_the_operators_are_what_pytorch_asks_of_operators(dtype: torch.dtype, biased: bool) -> None:
    weight = torch.randn(4, 5, 3, 3, requires_grad=True)
    bias = torch.randn(4, requires_grad=True) if biased else None
    torch.library.opcheck(convolve_spikes, (SPIKES, weight, bias, [2, 1], [1, 0], dtype))
    torch.library.opcheck(correlate_spikes, (SPIKES, torch.randn(2, 4, 3, 5).to(dtype), [4, 5, 3, 3], [2, 1], [1, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_compiled_convolution(backend: str, autocast: bool) -> None:
    def gradients(call: object) -> list[Tensor]:
        synapse = nn.Conv2d(5, 4, 3, padding=1)
        nn.init.constant_(synapse.weight, 0.37)
        x = SPIKES.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            z = call(x, synapse.weight, synapse.bias, Window(padding=(1, 1)))  # type: ignore[operator]
        z.float().square().sum().backward()
        assert x.grad is not None
        assert synapse.weight.grad is not None
        return [z, x.grad, synapse.weight.grad]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        eager = gradients(convolve)
        torch.manual_seed(0)
        compiled = gradients(torch.compile(convolve, backend=backend, fullgraph=True))
    for one, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2 if autocast else 1e-5, rtol=1e-2 if autocast else 1e-5)


def test_a_network_is_one_graph() -> None:
    model = tg.models.resnet(blocks=(1, 1), width=4)
    images = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*is deprecated")
def test_exported_and_traced_networks_hold_pytorchs_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs read them."""
    monkeypatch.setenv("TRACEGRAD_EVENTS", "1")
    model, images = tg.models.resnet(blocks=(1, 1), width=4).eval(), torch.randn(2, 3, 8, 8)
    exported = torch.export.export(model, (images,))
    assert not any("tracegrad" in str(node.target) for node in exported.graph.nodes)
    traced = torch.jit.trace(model, (images,), check_trace=False)
    others = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = model(others)
        torch.testing.assert_close(exported.module()(others), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(traced(others), expected, atol=1e-4, rtol=1e-4)
