"""`docs/attach/networks.md`, inputs, losses and training: each row by an example, or by the test that shows it."""

import copy
import pickle

import pytest
import torch
from spiking import Stateful, TimeFirst
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracegrad as tg
from small_networks import B, Between, N, T, assert_listed, assert_scaled, differ, gradients, lively, spikes
from table_rows import ROOT, Rows

ROWS = Rows("docs/attach/networks.md", "Inputs and losses", "The whole training")
PAIRS = (("first", "neuron0"), ("second", "neuron1"))


def attached(model: nn.Module, **options) -> tg.Attachment:
    return tg.attach(lively(model), spikes(), spiking_input=True, alpha=0.9, **options)


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert not differ(ours, theirs)


def assert_test_exists(path: str, name: str) -> None:
    """What takes processes or minutes is shown by another test."""
    assert f"\ndef {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), f"{path} has no {name}"


@ROWS.row("images, or frames of numbers", "listed")
def images() -> None:
    x = torch.rand(T, B, N, dtype=torch.float64)
    attachment = assert_listed(Between(), x, "first", "its input is the data", spiking_input=False)
    assert attachment.pairs == [("second", "neuron1")]


@ROWS.row("events of 0 and one height", "option")
def events() -> None:
    class Transposed(Between):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.transpose(0, 1))

    assert_scaled(Between(), 2 * spikes(), *PAIRS)
    assert_scaled(Transposed(), spikes(B, T, N), *PAIRS)


@ROWS.row("events that are counts", "listed")
def counts() -> None:
    assert_listed(Between(), spikes() + spikes().flip(0), "first", "values other than 0 and one height")


@ROWS.row("an encoder in the model", "option")
def encoder() -> None:
    class Encoded(Between):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((torch.rand(4, *x.shape) < x).to(x))

    x = torch.rand(B, N, dtype=torch.float64)
    assert_scaled(Encoded(), x, *PAIRS)
    assert_listed(Encoded(), x, "first", "spiking_input=True if these are spikes", spiking_input=False)


@ROWS.row("several arguments, or keywords", "option")
def arguments() -> None:
    class Two(Between):
        def forward(self, x: Tensor, y: Tensor, *, gain: float) -> Tensor:
            return super().forward(x) + gain * super().forward(y)

    assert_scaled(Two(), (spikes(), spikes().flip(0)), *PAIRS, example_kwargs={"gain": 2.0})


@ROWS.row("another T and another batch", "yes")
def other_sizes() -> None:
    small, large, x = Between(), Between(), spikes(7, 5, N)
    attached(small)
    tg.attach(lively(large), x, spiking_input=True, alpha=0.9)
    assert_close(gradients(small, x), gradients(large, x))


@ROWS.row("padded sequences", "option")
def padded() -> None:
    model = Between()
    attachment = attached(model, record=True, normalize="none", time="final")
    gradients(model, spikes()[:3])
    expected = attachment.relations["first"].clone()
    with attachment.mask(torch.tensor([True, True, True, False])[:, None].expand(T, B)):
        gradients(model, spikes())
    torch.testing.assert_close(attachment.relations["first"], expected)


@ROWS.row("a loss of membranes", "yes")
def membranes() -> None:
    @tg.register_neuron
    class WithMembranes(TimeFirst):
        def forward(self, currents: Tensor) -> tuple[Tensor, Tensor]:
            v, fired, left = 0.0, [], []
            for current in currents:
                spiked, v = self.step(v, current)
                fired.append(spiked)
                left.append(v)
            return torch.stack(fired), torch.stack(left)

    class Net(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.neuron1(self.second(self.neuron0(self.first(x))))[1]

    model = Net(neuron=WithMembranes())
    plain = gradients(lively(model), spikes())
    assert attached(model).pairs == list(PAIRS)
    with pytest.warns(UserWarning, match="do not reach the loss"):
        ours = gradients(model, spikes())
    assert differ(ours, plain) == {"first.weight"}
    gradients(model, spikes())  # a second warning would be an error


@ROWS.row("gradient accumulation", "yes")
def accumulation() -> None:
    model, batches = Between(), (spikes(), spikes().flip(0))
    attached(model)
    apart = [gradients(model, batch) for batch in batches]
    expected = {name: apart[0][name] + apart[1][name] for name in apart[0]}
    model.zero_grad()
    for batch in batches:
        model(batch).square().sum().backward()
    assert_close({name: value.grad for name, value in model.named_parameters()}, expected)
    model.zero_grad()
    penalty = sum(value.square().sum() for value in model.parameters())
    (model(batches[0]).square().sum() + model(batches[1]).square().sum() + penalty).backward()
    ours = {name: value.grad - 2 * value.detach() for name, value in model.named_parameters()}
    assert_close(ours, expected)


@ROWS.row("autocast in bf16 and fp16", "yes")
def autocast() -> None:
    model = Between()
    attachment = tg.attach(lively(model).float(), spikes().float(), spiking_input=True, record=True)
    for precision in (torch.bfloat16, torch.float16):
        scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), lr=0.1)
        before = copy.deepcopy(model.state_dict())
        with torch.autocast("cpu", precision):
            loss = model(spikes().float()).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        assert all(relation.dtype == torch.float32 for relation in attachment.relations.values())
        assert all((weight != before[name]).any() for name, weight in model.state_dict().items() if "weight" in name)


@ROWS.row("`torch.compile`", "yes")
def compiled() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t() + self.bias

    for model, as_one_graph in ((Between(), True), (Between(synapse=Own(N, N)), False)):
        torch._dynamo.reset()
        attached(model)
        expected = gradients(model, spikes())
        compiled = torch.compile(model, backend="aot_eager", fullgraph=as_one_graph)
        ours = gradients(compiled, spikes())
        assert_close({name.removeprefix("_orig_mod."): value for name, value in ours.items()}, expected)
    assert_test_exists("adapters/contract/test_running.py", "test_compiled")  # step by step, too


@ROWS.row("`torch.compile` with `record=True`", "error")
def compiled_recording() -> None:
    torch._dynamo.reset()
    model = Between()
    attached(model, record=True)
    with pytest.raises(Exception, match="record=True needs an eager backward pass"):
        torch.compile(model, backend="eager", fullgraph=True)(spikes())


class Checkpointed(Between):
    """Each layer with its neuron in a checkpoint."""

    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        for layer, neuron in ((self.first, self.neuron0), (self.second, self.neuron1)):
            parts = nn.Sequential(layer, neuron)
            x = checkpoint(parts, x, use_reentrant=self.reentrant)
        return x


@ROWS.row("checkpoints, `use_reentrant=False`", "yes")
def checkpoints() -> None:
    plain, model = Between(), Checkpointed()
    attached(plain)
    attached(model)
    assert_close(gradients(model, spikes()), gradients(plain, spikes()))


@ROWS.row("reentrant checkpoints", "error")
def reentrant_checkpoints() -> None:
    model = Checkpointed()
    attached(model)
    model.reentrant = True
    with pytest.raises(RuntimeError, match="recomputed by a reentrant checkpoint"):
        gradients(model, spikes().requires_grad_())


@ROWS.row("truncated back-propagation through time", "option")
def truncated() -> None:
    class Steps(Between):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([super(Steps, self).forward(frame) for frame in x])

    model = Steps(neuron=Stateful())
    model.neuron0 = Stateful()
    attached(model, time="per_step")
    for half in spikes().split(2):
        gradients(model, half)
        for neuron in (model.neuron0, model.neuron1):
            neuron.v = neuron.v.detach()
    gradients(model, spikes())
    with pytest.raises(RuntimeError, match="goes on with a sequence whose backward pass has run"):
        model(spikes())
    assert_test_exists("adapters/contract/test_sequences.py", "test_truncated_backpropagation_needs_per_step")


@ROWS.row("DDP", "option")
def processes() -> None:
    shown = "test_synchronised_processes_equal_one_and_others_the_mean_of_their_own"
    assert_test_exists("core/test_distributed.py", shown)


@ROWS.row("FSDP2", "yes")
def shards_and_hooks() -> None:
    assert_test_exists("core/attaching/test_wrapped.py", "test_fsdp2")
    model = Between()
    for module in model.modules():
        module.register_full_backward_hook(lambda *_: None)
    assert_scaled(model, spikes().requires_grad_(), *PAIRS)


@ROWS.row("`nn.DataParallel`", "error")
def data_parallel() -> None:
    with pytest.raises(ValueError, match=r"use torch\.nn\.parallel\.DistributedDataParallel"):
        tg.attach(nn.DataParallel(Between()), spikes().float())


@ROWS.row("`copy.deepcopy`, `load_state_dict`", "yes")
def copies() -> None:
    model, plain = Between(), lively(Between())
    keys = list(model.state_dict())
    attached(model)
    assert list(model.state_dict()) == keys
    model.load_state_dict(plain.state_dict())
    assert_close(gradients(copy.deepcopy(model), spikes()), gradients(model, spikes()))


@ROWS.row("pickling the model", "error")
def pickling() -> None:
    model = nn.Sequential(nn.Linear(N, N), tg.LIF(), nn.Linear(N, N), tg.LIF())
    attachment = attached(model)
    with pytest.raises(TypeError, match=r"call detach\(\) first"):
        pickle.dumps(model)
    with pytest.raises(AttributeError, match=r"call detach\(\) first"):
        torch.jit.script(model)
    attachment.detach()
    pickle.dumps(model)


@ROWS.row("`torch.export`", "option")
def export() -> None:
    model = nn.Sequential(nn.Linear(N, N), tg.LIF(), nn.Linear(N, N), tg.LIF())
    attached(model).detach()
    exported = torch.export.export(model, (spikes(),)).module()
    assert torch.equal(exported(spikes()), model(spikes()))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile's own
@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.slow) if row == "`torch.compile`" else row for row in ROWS.claims]
)
def test_training(row: str) -> None:
    ROWS.run(row)


def test_transforms_of_torch_func() -> None:
    """`functional_call` is scaled, torch.func's own derivatives are PyTorch's error."""
    model = Between()
    attached(model)
    expected = gradients(model, spikes())
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    torch.func.functional_call(model, weights, (spikes(),)).square().sum().backward()
    assert_close({name: weight.grad for name, weight in weights.items()}, expected)
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(lambda values: torch.func.functional_call(model, values, (spikes(),)).sum())(weights)
