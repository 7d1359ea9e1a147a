"""Half precision, checkpoints, torch.compile, deep copies, and a training."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracegrad as tg
from contract.cases import TIMES, WHOLE, Case, cases, every_time, grads, is_of_other_libraries_than
from contract.library import Fire, lay, over_time
from contract.models import WAYS
from contract.networks import BehindStem
from contract.signals import inputs_and_spikes, relation_of
from reference import assert_differ, assert_near, assert_same, loss_of
from tracegrad.events import mixed_precision

RESIDUAL = ("residual",)


@cases("autocast", ways=WHOLE)
@every_time
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast(case: Case, time: str, dtype: torch.dtype) -> None:
    """Of the same spikes, R_hat is what float64 makes of them; nothing but the weights' gradients changes."""
    plain, x = case.build().float(), case.frames().float()
    scaled = deepcopy(plain)
    attachment = case.attach(scaled, time=time, alpha=1.0, record=True, events=False)

    def in_half_precision(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        with torch.autocast("cpu", dtype):
            output = case.outputs(model, x)
        loss_of(output.float()).backward()
        return output, grads(model)

    theirs, untouched = in_half_precision(plain)
    with inputs_and_spikes(scaled) as seen:
        ours, got = in_half_precision(scaled)
    # On processors without bfloat16 only the attached synapses round the sums of its products once.
    rounding = 0.05 if dtype == torch.bfloat16 and not mixed_precision.CPU_HAS_BFLOAT16 else 0
    assert torch.equal(ours, theirs), "autocast outputs differ"
    weights = {f"{synapse.removeprefix('network.')}.weight" for synapse, _ in attachment.pairs}
    assert weights
    for name, gradient in got.items():
        assert gradient.isfinite().all(), f"{name} is not finite"
        if name not in weights:
            assert_near(gradient, untouched[name], max(rounding, 1e-6), name)
    for pair in attachment.pairs:
        relation = attachment.relations[pair[0]]
        assert relation.dtype == torch.float32
        assert relation.min() >= 0
        assert relation.max() == 1
        expected = relation_of(case, scaled, seen, pair, time, len(x))
        assert (relation - expected).abs().max() <= 0.01, f"R_hat of {pair[0]} is off by more than 0.01"
        if time != "per_step":
            name = f"{pair[0].removeprefix('network.')}.weight"
            assert_near(got[name], untouched[name] * relation, 0.02, name)


@cases("autocast", ways=WHOLE, networks=["crowd"])
@every_time
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_sums_beyond_half_precision(case: Case, time: str, dtype: torch.dtype) -> None:
    """R is added up over more examples than fp16 has numbers for, and bf16 has digits for."""
    model, x = case.build().float(), case.frames(time_steps=4, batch=60_000).float()
    attachment = case.attach(model, time=time, record=True)
    with inputs_and_spikes(model) as seen, torch.autocast("cpu", dtype):
        output = case.outputs(model, x)
    output.float().mean().backward()
    weight, relation = model.network.synapse.weight, attachment.relations["network.synapse"]
    assert weight.grad.isfinite().all()
    expected = relation_of(case, model, seen, attachment.pairs[0], time, len(x))
    assert (expected < 0.9).any(), "the case is void: all of R is the same"
    assert (relation - expected).abs().max() <= 0.01, f"R_hat is off by more than 0.01: {relation} is not {expected}"


# Checkpoints


class Segment(nn.Module):
    """Layers without a state in one checkpoint of PyTorch's."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layers, x, use_reentrant=False)


@cases("checkpoint of layers", ways=WHOLE, networks=RESIDUAL)
@every_time
def test_checkpoints_of_convolution_and_norm_change_no_gradient(case: Case, time: str) -> None:
    plain, x = case.build(), case.frames()
    untouched = case.gradients(deepcopy(plain), x)
    segmented = deepcopy(plain)
    network = segmented.network
    for place in "1234":
        convolution, norm = network.get_submodule(f"conv{place}"), network.get_submodule(f"norm{place}")
        setattr(network, f"conv{place}", Segment(convolution, norm))
        setattr(network, f"norm{place}", nn.Identity())
    for model in (plain, segmented):
        case.attach(model, time=time, alpha=0.5)
    expected, got = case.gradients(plain, x), case.gradients(segmented, x)
    assert_differ(expected, untouched)
    for place in "1234":
        assert_near(got[f"conv{place}.layers.0.weight"], expected[f"conv{place}.weight"], 1e-12, f"conv{place}")


@cases("checkpoint of steps", ways=["loop-inside"], networks=RESIDUAL)
@every_time
def test_checkpoints_of_each_step_change_no_gradient(case: Case, time: str) -> None:
    model, x = case.build(), case.frames()
    untouched = case.gradients(deepcopy(model), x)
    case.attach(model, time=time, alpha=0.5)
    expected = case.gradients(model, x)
    model.segment = checkpointed
    assert_same(case.gradients(model, x), expected, 1e-12)
    assert_differ(expected, untouched)


def checkpointed(step: Callable, frame: Tensor, fire: Fire) -> Tensor:
    """One step in a checkpoint, which goes on with the same states when it is computed anew."""
    states = dict(fire.states)

    def run(frame: Tensor) -> Tensor:
        fire.states = dict(states)
        return step(frame, fire)

    return checkpoint(run, frame, use_reentrant=False)


# Compiled, copied, trained


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile's own
@cases("compile", ways=WHOLE, networks=["convolutional"], slow=is_of_other_libraries_than("SpikingJelly", "Stub"))
@pytest.mark.parametrize("time", ["per_step", *(pytest.param(time, marks=pytest.mark.slow) for time in TIMES[1:])])
def test_compiled(case: Case, time: str) -> None:
    torch._dynamo.reset()
    model, x = case.build(), case.frames(time_steps=4)
    untouched = case.gradients(deepcopy(model), x)
    case.attach(model, time=time, alpha=0.5)
    expected = case.gradients(model, x)
    compiled = torch.compile(model, backend="aot_eager")
    for _ in range(2):
        assert_same(case.gradients(compiled, x), expected, 1e-10)
    assert_differ(expected, untouched)


@cases("deepcopy")
def test_a_deep_copy_trains_with_scaling_of_its_own(case: Case) -> None:
    model, x = case.build(), case.frames()
    untouched = case.gradients(deepcopy(model), x)
    attachment = case.attach(model, alpha=0.5)
    model.begin()
    duplicate = deepcopy(model)
    expected = case.gradients(model, x)
    attachment.detach()
    assert_same(case.gradients(duplicate, x), expected, 0.0)
    assert_same(case.gradients(model, x), untouched, 0.0)
    tg.detach(duplicate)
    assert_same(case.gradients(duplicate, x), untouched, 0.0)
    assert_differ(expected, untouched)


class Digits(nn.Module):
    """A classifier of images [B, 1, 8, 8] whose stem sees the still image once; [T, B, classes]."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        library = case.library
        self.stem, self.norm0, self.case = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), case
        self.behind = WAYS[case.way](BehindStem(library.layers, library.neurons[case.neuron]), library)

    def forward(self, images: Tensor) -> Tensor:
        self.behind.begin()
        still = self.norm0(self.stem(images))
        currents = still.expand(4, *still.shape)
        return over_time(self.behind(lay(currents, self.case.layout)), self.case.layout, len(currents))


@cases("training", ways=WHOLE, networks=RESIDUAL, slow=is_of_other_libraries_than("SpikingJelly", "SnnTorch"))
def test_three_epochs_on_digits(case: Case) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target)
    model = Digits(case)
    attachment = tg.attach(model, images[:1])
    assert attachment.pairs == [("behind.network.hidden", "behind.network.neuron1")]
    assert "its input is the data" in dict(attachment.skipped)["stem"]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    epochs = []
    for _ in range(3):
        losses = []
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]).mean(0), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epochs.append(sum(losses) / len(losses))
    assert epochs[-1] < 0.5 * epochs[0], f"the loss of the epochs: {epochs}"
    with torch.no_grad():
        right = model(images).mean(0).argmax(1) == labels
    assert right.float().mean() > 0.9, f"accuracy {right.float().mean():.2%} on its own training data"
