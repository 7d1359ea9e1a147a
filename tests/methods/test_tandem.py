"""Local tandem learning: its losses against loops over single steps, and the locality of its gradients."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core import compiled as compilation
from tracegrad.measure.spikes import count_spikes
from tracegrad.methods.tandem import TandemLearning

T, B, CLASSES = 8, 3, 4
IMAGES = torch.randn(B, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1])
STAGE_2 = "stages.1.0"


def network(neuron=None, seed: int = 0, time_steps: int = T, width: int = 3, blocks: tuple[int, ...] = (2, 1)):
    """A residual network whose currents are large enough for every neuron layer to fire."""
    torch.manual_seed(seed)
    model = tg.models.resnet(CLASSES, 1, blocks, width, time_steps, neuron=neuron or (lambda: tg.LIF(threshold=0.6)))
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.8, 1.2)
    return model.double()


def teacher(**options: int):
    return network(nn.ReLU, 1, 1, **options)


def layer_of(parameter: str) -> str:
    """The neuron that a parameter's current drives, by the names of the residual network."""
    *place, name, _ = parameter.split(".")
    if name == "classifier":
        return "output"
    if not place:
        return "neuron"
    return ".".join([*place, "neuron1" if name in ("conv1", "norm1") else "neuron2"])


def heard(model: nn.Module, kind: type[nn.Module]) -> dict[str, Tensor]:
    """What each module of a kind puts out for IMAGES, with the outputs as "output"."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out.detach().clone()))
        for name, module in model.named_modules()
        if isinstance(module, kind)
    ]
    with torch.no_grad():
        found["output"] = model(IMAGES)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_the_losses_are_those_of_the_paper(mode: str) -> None:
    student, ann = network(), teacher()
    twin, guide = copy.deepcopy(student), copy.deepcopy(ann).eval()
    losses = TandemLearning(student, ann, mode).losses(IMAGES, TARGET)
    spikes, activations = heard(twin, tg.LIF), heard(guide, nn.ReLU)
    percentile, steps = (99.9, [T - 1]) if mode == "offline" else (99, range(3 * T // 4, T))
    means = {name: [x[: t + 1].mean(0) for t in steps] for name, x in spikes.items()}
    assert losses.layers.keys() == spikes.keys() - {"output"}
    for name, loss in losses.layers.items():
        a = activations[name][0].numpy()
        a = np.clip(a / np.percentile(a, percentile, method="inverted_cdf"), 0, 1)
        expected = sum(np.square(mean.numpy() - a).mean() for mean in means[name])
        assert loss.item() == pytest.approx(expected, rel=1e-12), name
    expected = sum(F.cross_entropy(mean, TARGET).item() for mean in means["output"])
    assert losses.output.item() == pytest.approx(expected, rel=1e-12)
    assert losses.total.item() == pytest.approx(sum(x.item() for x in losses.layers.values()) + expected, rel=1e-12)
    assert torch.equal(losses.outputs, spikes["output"])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_every_gradient_is_local(mode: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if fused:
        monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)
        monkeypatch.setattr(compilation, "has_compiler", lambda device: False)
        compilation._kernel.cache_clear()
    student = network().to(memory_format=torch.channels_last)
    losses = TandemLearning(student, teacher(), mode).losses(IMAGES, TARGET)
    parameters = dict(student.named_parameters())
    assert {layer_of(name) for name in parameters} == {*losses.layers, "output"}
    for layer, loss in {**losses.layers, "output": losses.output}.items():
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if layer_of(name) == layer:
                assert gradient is not None, f"the loss of {layer} does not reach {name}"
                assert gradient.count_nonzero() > 0, f"the loss of {layer} does not teach {name}"
            else:
                assert gradient is None or gradient.count_nonzero() == 0, f"the loss of {layer} reaches {name}"
    compilation._kernel.cache_clear()


class Chain(nn.Module):
    """One synapse, one neuron layer and a classifier, on frames [T, B, 2]; the ReLU's form takes [B, 2]."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.synapse, self.neuron, self.classifier = nn.Linear(2, 5).double(), neuron, nn.Linear(5, CLASSES).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.neuron(self.synapse(x)))


def test_online_gradients_are_those_of_one_step_at_a_time() -> None:
    student, ann = Chain(tg.LIF(0.8, 0.6, surrogate="sigmoid")), Chain(nn.ReLU())
    frames = torch.randn(T, B, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    TandemLearning(student, ann, "online").loss(frames, TARGET).backward()
    activation = ann.neuron(ann.synapse(frames)).detach()
    scale = np.percentile(activation.numpy(), 99, method="inverted_cdf")
    target = (activation / scale).clamp(0, 1).mean(0)
    weight, bias = student.synapse.weight.detach(), student.synapse.bias.detach()
    v, count, gradient = torch.zeros(B, 5).double(), torch.zeros(B, 5).double(), torch.zeros_like(weight)
    for t in range(T):
        u = 0.8 * v + frames[t] @ weight.T + bias
        s = (u >= 0.6).double()
        v, count = u - 0.6 * s, count + s
        p = 1 / (1 + torch.exp(-4 * (u - 0.6)))
        if t >= 6:
            for_spikes = 2 * (count / (t + 1) - target) / target.numel() / (t + 1)
            gradient += (for_spikes * 4 * p * (1 - p)).T @ frames[t]
    torch.testing.assert_close(student.synapse.weight.grad, gradient, rtol=1e-12, atol=1e-14)


def test_nothing_stays_on_the_networks() -> None:
    student, ann = network(), teacher()
    before = copy.deepcopy(ann.state_dict())
    tandem = TandemLearning(student, ann, "online")
    with count_spikes(student) as spikes:
        tandem.loss(IMAGES, TARGET).backward()
    assert spikes.total > 0
    for module in (*student.modules(), *ann.modules()):
        assert not module._forward_hooks, module
    assert not any(neuron.detach_membrane for neuron in student.modules() if isinstance(neuron, tg.LIF))
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())
    assert all(parameter.grad is None for parameter in ann.parameters())
    student.zero_grad()
    tg.objectives.mean_cross_entropy(student(IMAGES), TARGET).backward()
    assert student.conv.weight.grad.count_nonzero() > 0, "the student is still cut into layers"


def test_a_failing_student_is_left_as_it_was() -> None:
    student = network()
    tandem = TandemLearning(student, teacher(), "online")
    student.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tandem.loss(IMAGES, TARGET)
    assert not student.neuron._forward_hooks
    assert not student.neuron.detach_membrane


def test_a_silent_layer_of_the_teacher_teaches_silence() -> None:
    student, ann = network(), teacher()
    nn.init.constant_(ann.norm.bias, -100)
    losses = TandemLearning(student, ann).losses(IMAGES, TARGET)
    rate = heard(student, tg.LIF)["neuron"].mean(0)
    assert losses.layers["neuron"].item() == pytest.approx(rate.square().mean().item(), rel=1e-12)
    assert math.isfinite(losses.total.item())


def test_a_user_s_network_that_writes_into_its_spikes_and_reuses_a_neuron() -> None:
    class Reused(nn.Module):
        def __init__(self, neuron: nn.Module) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 5).double(), nn.Linear(5, 5).double()
            self.neuron, self.classifier = neuron, nn.Linear(5, CLASSES).double()

        def forward(self, x: Tensor) -> Tensor:
            first = self.neuron(self.one(x))
            kept = first.clone()
            first += 7
            return self.classifier(self.neuron(self.two(kept)))

    class Listening(tg.LIF):
        def forward(self, currents: Tensor) -> Tensor:
            spikes = super().forward(currents)
            rates.append(spikes.detach().mean(0))
            return spikes

    rates: list[Tensor] = []
    student, ann = Reused(Listening(threshold=0.1)), Reused(nn.ReLU())
    frame = torch.randn(B, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tandem = TandemLearning(student, ann)
    with pytest.raises(ValueError, match=r"outputs must be \[T, B, K\]"):
        tandem.losses(frame, TARGET)
    rates.clear()
    losses = tandem.losses(frame.expand(T, B, 2), TARGET)
    first = ann.neuron(ann.one(frame))
    activations = [first, ann.neuron(ann.two(first))]
    expected = sum(((rate - a / a.max()) ** 2).mean().item() for rate, a in zip(rates, activations, strict=True))
    assert losses.layers["neuron"].item() == pytest.approx(expected, rel=1e-12)


class Foreign(nn.Module):
    def forward(self, currents: Tensor) -> Tensor:
        return (currents > 0).to(currents.dtype)


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="unknown mode 'on'.* 'offline', 'online'"):
        TandemLearning(network(), teacher(), "on")
    with pytest.raises(ValueError, match="ResNet holds no spiking neuron"):
        TandemLearning(teacher(), teacher())
    with pytest.raises(
        ValueError, match=r"topology: 'stages.0.1.neuron1' of the student is no nn.ReLU module in the teacher"
    ):
        TandemLearning(network(), teacher(blocks=(1, 1)))
    with pytest.raises(ValueError, match=r"topology: 'stages.0.1.neuron1' of the teacher is no neuron in the student"):
        TandemLearning(network(blocks=(1, 1)), teacher())
    with pytest.raises(ValueError, match=r"topology: 'neuron' has .* shape \[3, 4, 8, 8\] in it and of \[3, 3, 8, 8\]"):
        TandemLearning(network(), teacher(width=4)).loss(IMAGES, TARGET)
    tg.register_neuron(Foreign)
    with pytest.raises(ValueError, match="Foreign .*'neuron'.* has no detach_membrane option"):
        TandemLearning(network(Foreign), teacher(), "online")
    TandemLearning(network(Foreign), teacher())


def test_the_order_of_calls_is_part_of_the_topology() -> None:
    class Swapped(Chain):
        def __init__(self, make, first: str) -> None:
            super().__init__(make())
            self.other, self.first = make(), first

        def forward(self, x: Tensor) -> Tensor:
            one, two = (self.neuron, self.other) if self.first == "neuron" else (self.other, self.neuron)
            return self.classifier(two(one(self.synapse(x))))

    with pytest.raises(ValueError, match="where the student calls 'neuron', it calls 'other'"):
        TandemLearning(Swapped(tg.LIF, "neuron"), Swapped(nn.ReLU, "other")).loss(
            torch.zeros(T, B, 2, dtype=torch.float64), TARGET
        )


class Functional(nn.Module):
    """Two layers whose activations are modules, functions, or modules that are left aside for functions."""

    def __init__(self, make, first=None) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 5).double(), nn.Linear(5, 5).double()
        self.classifier = nn.Linear(5, CLASSES).double()
        if first is None or make is nn.ReLU:
            self.neuron1 = make()
        self.neuron2, self.first = make(), first

    def forward(self, x: Tensor) -> Tensor:
        first = self.first or self.neuron1
        return self.classifier(self.neuron2(self.two(first(self.one(x)))))


@pytest.mark.parametrize("function", [F.relu, torch.relu, lambda x: x.relu_(), lambda x: x.clamp(min=0)])
def test_a_teacher_with_functions_for_activations_is_refused(function) -> None:
    frames = torch.randn(T, B, 2, dtype=torch.float64)
    aside = Functional(nn.ReLU, function)
    with pytest.raises(ValueError, match=r"calls 'neuron1', it calls 'neuron2'; functions such as F.relu"):
        TandemLearning(Functional(tg.LIF), aside).loss(frames, TARGET)
    del aside.neuron1
    with pytest.raises(ValueError, match=r"'neuron1' of the student is no nn.ReLU module.*functions such as F.relu"):
        TandemLearning(Functional(tg.LIF), aside)
