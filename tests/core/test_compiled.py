"""Scaling in compiled passes against the same equations as PyTorch operations."""

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core import compiled as compilation


def network() -> nn.Module:
    torch.manual_seed(0)
    return tg.models.resnet(blocks=(1, 1), width=4).double().to(memory_format=torch.channels_last)


def gradients(**options: object) -> dict[str, Tensor]:
    model, images = network(), torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    tg.attach(model, images[:1], alpha=0.5, **options)
    model(images).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def compare(monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    expected = gradients(**options)
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)
    torch.testing.assert_close(gradients(**options), expected, rtol=1e-12, atol=1e-12)


def test_one_network_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, time="mean")


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["max", "mean", "neuron", "none"])
@pytest.mark.parametrize("relation", ["positive", "pre_pre"])
@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_all_options_compiled(time: str, relation: str, normalize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, time=time, relation=relation, normalize=normalize)


@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_the_passes_as_operations(time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "has_compiler", lambda device: False)
    compilation._kernel.cache_clear()
    try:
        compare(monkeypatch, time=time)
    finally:
        compilation._kernel.cache_clear()


@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_relation_batch_takes_the_first_examples(time: str) -> None:
    fraction, whole = network(), network()
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    estimate = tg.attach(fraction.eval(), images[:1], time=time, record=True, relation_batch=0.4)
    fraction(images).sum().backward()
    of_two = tg.attach(whole.eval(), images[:1], time=time, record=True)
    whole(images[:2]).sum().backward()
    torch.testing.assert_close(estimate.relations, of_two.relations, rtol=1e-12, atol=1e-12)


def test_a_tiny_fraction_is_one_example() -> None:
    model, images = network(), torch.randn(3, 3, 8, 8).double()
    a = tg.attach(model, images[:1], record=True, relation_batch=1e-9)
    model(images).sum().backward()
    assert all(relation.isfinite().all() for relation in a.relations.values())


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan")])
def test_no_fraction_of_the_batch(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"relation_batch is a fraction of the batch, in \(0, 1\], not"):
        tg.attach(network(), torch.randn(1, 3, 8, 8).double(), relation_batch=fraction)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of what PyTorch compiles
@pytest.mark.parametrize("part", ["the model", "the pool"])
def test_pools_between_synapse_and_neuron_are_not_compiled(part: str) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.lif = nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), tg.LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.pool(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]))

    model, x = Pooled(), (torch.rand(4, 2, 2, 8, 8) < 0.5).float()
    tg.attach(model, x, spiking_input=True, through_pools=True)
    model(x).sum().backward()
    if part == "the pool":
        model.pool = torch.compile(model.pool, backend="aot_eager")
    else:
        model = torch.compile(model, backend="aot_eager")
    with pytest.raises(ValueError, match="through_pools=True needs pools that are not compiled"):
        model(x).sum().backward()
