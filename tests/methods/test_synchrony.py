"""DA-SSDP against plain loops over examples and weights, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.methods.synchrony import SynchronyPlasticity

T, B, INPUTS, OUTPUTS = 5, 4, 6, 3
A_PLUS, A_MINUS, SIGMA = 0.3, 0.1, 1.5


class Readout(nn.Module):
    """Neurons, a hidden layer with neurons, and a classifier without."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons, self.hidden, self.fires = tg.LIF(), nn.Linear(INPUTS, INPUTS), tg.LIF()
        self.classifier = nn.Linear(INPUTS, OUTPUTS)

    def forward(self, currents: Tensor) -> Tensor:
        return self.classifier(self.fires(self.hidden(self.neurons(currents))))


def batches(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.8 * torch.randn(T, B, INPUTS, generator=generator, dtype=torch.float64) for _ in range(number)]


def first(train: list[float]) -> tuple[int, int]:
    """Whether a train has an entry above 0, and where its first one is."""
    steps = [t for t, spike in enumerate(train) if spike > 0]
    return (1, steps[0]) if steps else (0, T)


def synchronies(pre: Tensor, post: Tensor) -> list[float]:
    found = []
    for b in range(B):
        fired = [first(post[:, b, o].tolist())[0] * first(pre[:, b, i].tolist())[0]
                 for o in range(post.shape[2]) for i in range(pre.shape[2])]  # fmt: skip
        found.append(sum(fired) / len(fired))
    return found


def gates(synchrony: list[float], seen: list[float], losses: list[float]) -> list[float]:
    """`seen` and `losses` are one number for each example of the warm-up."""
    mu, loss = sum(seen) / len(seen), sum(losses) / len(losses)
    sd = math.sqrt(sum((s - mu) ** 2 for s in seen) / len(seen))
    spread = math.sqrt(sum((each - loss) ** 2 for each in losses) / len(seen))
    k = -sum((s - mu) * (each - loss) for s, each in zip(seen, losses, strict=True)) / len(seen) / sd / spread
    assert abs(k) > 0.05
    return [min(max(1 + k * (s - mu) / sd, 0), 2) for s in synchrony]


def change(pre: Tensor, post: Tensor, gate: list[float]) -> Tensor:
    total = torch.zeros(post.shape[2], pre.shape[2], dtype=torch.float64)
    for o in range(post.shape[2]):
        for i in range(pre.shape[2]):
            for b in range(B):
                (fires, late), (fired, early) = first(post[:, b, o].tolist()), first(pre[:, b, i].tolist())
                near = math.exp(-((late - early) ** 2) / (2 * SIGMA**2))
                both = fires * fired
                total[o, i] += gate[b] * near * (A_PLUS * both - A_MINUS * (1 - both)) / B
            total[o, i] = min(max(total[o, i], -1), 1)
    return total


def ends(model: Readout, currents: Tensor, name: str) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        spikes = model.neurons(currents)
        hidden = model.fires(model.hidden(spikes))
        return (spikes, hidden) if name == "hidden" else (hidden, model.classifier(hidden))


@pytest.mark.parametrize("name", ["classifier", "hidden"])
def test_the_gate_learns_in_the_warm_up_and_then_scales_the_changes(name: str) -> None:
    torch.manual_seed(0)
    model = Readout().double()
    nn.init.normal_(model.hidden.weight, 0.1, 0.6)
    weight, neuron = getattr(model, name).weight, "fires" if name == "hidden" else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    seen, losses = [], []
    with SynchronyPlasticity(model, {name: neuron}, 3, A_PLUS, A_MINUS, SIGMA) as plasticity:
        for number, currents in enumerate(batches(5)):
            before, (pre, post) = weight.detach().clone(), ends(model, currents, name)
            loss = model(currents).square().mean()
            loss.backward()
            optimizer.step()
            plasticity.step(optimizer, loss)
            synchrony = synchronies(pre, post)
            if number < 3:
                assert torch.equal(weight, before)
                seen, losses = seen + synchrony, losses + [loss.item()] * B
            else:
                expected = change(pre, post, gates(synchrony, seen, losses))
                assert (expected > 0).any()
                assert (expected < 0).any()
                torch.testing.assert_close(weight.detach() - before, expected, rtol=1e-9, atol=1e-12)
    assert not any(module._forward_hooks for module in model.modules())


def test_without_a_warm_up_every_gate_is_one() -> None:
    torch.manual_seed(0)
    model, (currents,) = Readout().double(), batches(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, (pre, post) = model.classifier.weight.detach().clone(), ends(model, currents, "classifier")
    with SynchronyPlasticity(model, {"classifier": None}, 0, A_PLUS, A_MINUS, SIGMA) as plasticity:
        plasticity.step(optimizer, model(currents).sum())
    torch.testing.assert_close(model.classifier.weight.detach() - before, change(pre, post, [1.0] * B))


def test_a_change_is_clipped() -> None:
    model, (currents,) = Readout().double(), batches(1)
    before = model.classifier.weight.detach().clone()
    with SynchronyPlasticity(model, {"classifier": None}, 0, a_plus=100.0, a_minus=100.0) as plasticity:
        plasticity.step(torch.optim.SGD(model.parameters(), lr=0.1), model(currents).sum())
    assert (model.classifier.weight - before).abs().max() <= 1 + 1e-12


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9)])
def test_the_gate_is_saved_and_loaded_with_the_optimizer(make, tmp_path) -> None:
    def trained(interrupted: bool) -> Tensor:
        torch.manual_seed(0)
        model = Readout()
        optimizer = make(model.parameters())
        plasticity = SynchronyPlasticity(model, {"classifier": None}, 3, A_PLUS, A_MINUS)
        for number, currents in enumerate(batches(6)):
            if interrupted and number in (2, 4):
                torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "state")
                weights, state = torch.load(tmp_path / "state", weights_only=True)
                model = Readout()
                model.load_state_dict(weights)
                optimizer = make(model.parameters())
                optimizer.load_state_dict(state)
                plasticity = SynchronyPlasticity(model, {"classifier": None}, 3, A_PLUS, A_MINUS)
            loss = model(currents.float()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plasticity.step(optimizer, loss)
        return model.classifier.weight

    assert torch.equal(trained(interrupted=True), trained(interrupted=False))


def test_evaluation_is_not_listened_to() -> None:
    model, (currents,) = Readout().eval().double(), batches(1)
    with SynchronyPlasticity(model, {"classifier": None}, 0) as plasticity:
        model(currents)
        with pytest.raises(ValueError, match="classifier was not called in training mode since the last step"):
            plasticity.step(torch.optim.SGD(model.parameters(), lr=0.1), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("synapses", "options", "message"),
    [
        ({"head": None}, {}, "'head' is no linear layer of Readout, which has hidden, classifier"),
        ({"hidden": "classifier"}, {}, "'classifier', behind 'hidden', is no neuron of Readout"),
        ({"classifier": None}, {"sigma": 0.0}, "sigma must be above 0 steps, not 0.0"),
        ({"classifier": None}, {"warm_up": -1}, "warm_up must be at least 0 steps, not -1"),
    ],
)
def test_what_does_not_fit_is_refused(synapses: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SynchronyPlasticity(Readout(), synapses, **{"warm_up": 1, **options})
