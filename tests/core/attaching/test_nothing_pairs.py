"""An error where nothing pairs: the commonest reason and what helps."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from spiking import Fire, Stateful, TimeFirst
from torch import Tensor, nn

import tracegrad as tg
from attaching.models import T, assert_untouched

B = 3


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def layers(neuron: Callable[[], nn.Module] = TimeFirst) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), neuron(), nn.Linear(6, 6), neuron(), nn.Linear(6, 3))


class Unregistered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Fire.apply(x - 0.5)


class Through(nn.Module):
    """What currents pass on their way to a neuron is given."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.n0, self.b, self.n1 = nn.Linear(6, 6), TimeFirst(), nn.Linear(6, 6), TimeFirst()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.n1(self.between(self.b(self.n0(self.between(self.a(x))))))


class OwnOperation(nn.Module):
    """Multiplies by its weights in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w0, self.w1 = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6))
        self.n0, self.n1 = TimeFirst(), TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        s = self.n0((x[..., None] * self.w0).sum(-2))
        return self.n1((s[..., None] * self.w1).sum(-2))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.n = nn.Conv1d(1, 4, 3, padding=1), TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        return self.n(F.max_pool1d(self.conv(x.flatten(0, 1)[:, None]), 2).unflatten(0, x.shape[:2]))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), TimeFirst())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers((torch.rand(T, *x.shape) < x.abs()).float())


class OneNeuronForAll(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.neuron = nn.Linear(6, 6), nn.Linear(6, 6), Stateful()

    def forward(self, x: Tensor) -> Tensor:
        self.neuron.reset()
        return torch.stack([self.neuron(self.second(self.neuron(self.first(frame)))) for frame in x])


class Frozen(nn.Module):
    def __init__(self, mode: Callable) -> None:
        super().__init__()
        self.layers, self.mode = layers(), mode

    def forward(self, x: Tensor) -> Tensor:
        with self.mode():
            return self.layers(x)


class NeverCalled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.neuron = nn.Linear(6, 6), TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        return x


def with_hooks(model: nn.Sequential, hook: Callable[[Tensor], Tensor]) -> nn.Sequential:
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _, __, output: hook(output))
    return model


DATA = {"spiking_input": False}
NOTHING = {
    "data alone": (lambda: layers()[:3], DATA, "its input is the data", "spiking_input=True"),
    "an encoder": (Encoder, DATA, "a constant of 0 and one height", "spiking_input=True"),
    "neurons behind unregistered": (
        lambda: nn.Sequential(TimeFirst(), nn.Linear(6, 6), Unregistered(), nn.Linear(6, 6), Unregistered()),
        {},
        "no post-synaptic neuron",
        r"tg\.register_neuron\(YourNeuron\)",
    ),
    "neurons before unregistered": (
        lambda: nn.Sequential(nn.Linear(6, 6), Unregistered(), nn.Linear(6, 6), TimeFirst()),
        DATA | {"exclude": "0"},
        "has passed Fire in 1",
        r"tg\.register_neuron\(Unregistered\)",
    ),
    "own operations": (OwnOperation, {}, "OwnOperation did not use it in a way that is known", r"F\.linear"),
    "all excluded": (layers, {"exclude": "*"}, r"left out by exclude='\*'", "other patterns"),
    "none included": (layers, {"include": ()}, r"left out by include=\[\]", "other patterns"),
    "classifier included": (layers, {"include": "4"}, "left out by include='4'", "other patterns"),
    "scope": (layers, {"scope": "same-shape"}, "scope='same-shape' takes convolutions", "scope='all'"),
    "unequal ends": (
        lambda: nn.Sequential(nn.Linear(6, 5), TimeFirst(), nn.Linear(5, 3), TimeFirst()),
        {"relation": "pre_pre"},
        "its two ends differ in shape",
        "another relation",
    ),
    "pool": (Pooled, {}, "its current is pooled", "through_pools=True"),
    "permuted": (lambda: Through(lambda z: z.flip(-1)), {}, "Flip", "does not keep its shape and order"),
    "detached": (lambda: Through(torch.detach), {}, "its current reaches none", r"tg\.register_neuron"),
    "detached by hooks": (
        lambda: with_hooks(layers(), torch.detach),
        {},
        "its current reaches none",
        r"tg\.register_neuron",
    ),
    "permuted by hooks": (lambda: with_hooks(layers(), lambda z: z.flip(-1)), {}, "Flip", "shape and order"),
    "no_grad": (lambda: Frozen(torch.no_grad), {}, "computed without gradients", r"torch\.no_grad"),
    "inference_mode": (lambda: Frozen(torch.inference_mode), {}, "computed without gradients", r"torch\.no_grad"),
    "not called": (NeverCalled, {}, "not called", "attach with an example"),
    "one neuron for all": (OneNeuronForAll, {}, "4 times, but its neuron neuron 8 times", "once for every step"),
}


@pytest.mark.parametrize(("build", "options", "reason", "remedy"), NOTHING.values(), ids=NOTHING)
def test_where_nothing_pairs(build: Callable[[], nn.Module], options: dict, reason: str, remedy: str) -> None:
    """An error that gives the commonest reason and what helps; with `allow_empty` the table, and the baseline."""
    model, x = build(), spikes(*((B, 6) if build is Encoder else (T, B, 6)))
    options = {"spiking_input": True, **options}
    with pytest.raises(ValueError, match=f"no synapse can be scaled[\\s\\S]*{reason}[\\s\\S]*{remedy}"):
        tg.attach(model, x, **options)
    assert_untouched(model)
    a = tg.attach(model, x, allow_empty=True, **options)
    assert a.pairs == []
    assert a.skipped
    assert str(a).startswith(f"gradient scaling of 0 of {len(a.skipped)} synapses")
    model(x)
    a.detach()
    assert_untouched(model)


def test_the_remedy_is_that_of_the_reason() -> None:
    with pytest.raises(ValueError) as error:
        tg.attach(layers(), spikes(T, B, 6), spiking_input=True, exclude="*")
    message = str(error.value).partition("\n")[0]
    assert message.endswith("2 of 3 synapses: left out by exclude='*'; choose other patterns")


def test_no_neuron_at_all() -> None:
    with pytest.raises(ValueError, match=r"no neuron that is known; register its class: tg\.register_neuron"):
        tg.attach(layers(Unregistered), spikes(T, B, 6), spiking_input=True, allow_empty=True)


def test_an_empty_attachment_answers_as_any_other() -> None:
    a = tg.attach(layers(), spikes(T, B, 6), exclude="*", spiking_input=True, allow_empty=True, alpha=0.3)
    assert a.alpha == 0.3
    assert a.state_dict() == {"alpha": {}}
    assert a.relations == {}
    with a.mask(torch.ones(T, B, dtype=torch.bool)):
        a._installation.model(spikes(T, B, 6))
