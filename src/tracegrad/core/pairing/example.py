"""One example forward pass with marks in its autograd graph where currents and spikes begin and arrive."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Size, Tensor, nn
from torch.utils._pytree import tree_map

from tracegrad.core.attributes import kept_attributes
from tracegrad.core.equations.functional import SynapseCall
from tracegrad.core.neurons import (
    current_of,
    is_neuron,
    spikes_of,
    steps_one_by_one,
    time_of,
    with_current,
    with_spikes,
)
from tracegrad.core.pairing.graph import Use
from tracegrad.core.state import StateWatch
from tracegrad.core.synapses import (
    holds_weights,
    install_gate,
    is_one_to_one,
    is_plain,
    parameters_behind,
    remove_gate,
    weight_names,
)
from tracegrad.core.time_layout import TimeLayout
from tracegrad.core.torch_internals import Node, creation_number, in_backward_pass

Kind = Literal["current", "product", "spikes", "input"]


class _Mark(torch.autograd.Function):
    """The identity; its node in the graph says what passes there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: Kind, use: Use) -> Tensor:
        ctx.kind, ctx.use = kind, use
        return x.clone()  # not a view: the model may write it in place

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *grad_outputs, None, None


@contextmanager
def _recording() -> Generator[None]:
    """Records a graph in parts of the model, too, that run under torch.no_grad or torch.inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _mark(x: Tensor, kind: Kind, use: Use) -> Tensor:
    with _recording():
        return _Mark.apply(x, kind, use)  # pyright: ignore[reportReturnType]


def _leaf(x: Tensor) -> Tensor:
    with _recording():
        return x.detach().clone().requires_grad_()


@dataclass(frozen=True)
class SeenSynapse:
    """One call of a synapse.

    Attributes:
        call: its input without a graph, weight, bias and geometry.
        source: the node of its input; None for a constant.
        shape: of its current.
        inside: the call of the neuron in which it was called, if in one.
        recorded: whether gradients were recorded; not under torch.no_grad.
    """

    call: SynapseCall
    source: Node | None
    shape: Size
    inside: Use | None
    recorded: bool


@dataclass
class SeenNeuron:
    """One call of a neuron.

    Attributes:
        arguments: that it was called with.
        keywords: alike.
        layout: where time is in its input and spikes.
        time_steps: T.
        input: the node at its input, and the shape there.
        spikes: what it fired.
        version: of the spikes, before the model could write them in place.
    """

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    layout: TimeLayout
    time_steps: int
    input: tuple[Node, Size]
    spikes: Tensor = field(default_factory=lambda: torch.empty(0))
    version: int = 0

    @property
    def batch(self) -> int:
        """B."""
        return self.layout.split(self.spikes, self.time_steps).shape[1]


class ExampleRun:
    """The example forward pass of a model and what was seen in it.

    Attributes:
        synapses: each call of a synapse, in their order.
        neurons: each call of a neuron, in their order.
        calls: how often each synapse and neuron was called.
        starts: how many sequences each neuron has started that is called step by step.
        data: the nodes at which the example's tensors enter, and these tensors.
        owners: the module in which each synapse computes its current.
        used_parameters: the ids of the parameters that the weights of synapses are made of.
        watched: the plain synapses whose functions were watched.
    """

    def __init__(self, model: nn.Module, watched: frozenset[str] = frozenset()) -> None:
        self.model = model
        self.watched = watched
        modules = dict(model.named_modules())
        self._gated = {name: each for name, each in modules.items() if is_plain(each) or holds_weights(each)}
        self._neurons = {name: each for name, each in modules.items() if is_neuron(each)}
        self._others = {name: each for name, each in modules.items() if name not in self._neurons}
        self.stepping = {name for name, each in self._neurons.items() if steps_one_by_one(each)}
        self.synapses: dict[Use, SeenSynapse] = {}
        self.neurons: dict[Use, SeenNeuron] = {}
        self.calls: dict[str, int] = {}
        self.starts: dict[str, int] = {}
        self.data: dict[Node, Tensor] = {}
        self.owners: dict[str, str] = {}
        self.used_parameters: set[int] = set()
        self._firing: list[Use] = []
        self._spans: list[tuple[int, int, str]] = []

    def run(self, arguments: Sequence[Any], keywords: dict[str, Any]) -> None:
        """Runs the example without a trace in the model."""
        entered: list[Tensor] = []

        def enter(leaf: Any) -> Any:
            if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                return leaf
            entered.append(leaf.detach().clone().requires_grad_())
            return entered[-1]

        arguments, keywords = tree_map(enter, (tuple(arguments), keywords))
        # The model computes with copies of its buffers, so that running statistics stay as they are.
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        devices = {x.device.index for x in (*entered, *self.model.parameters(), *buffers.values()) if x.is_cuda}
        with ExitStack() as stack:
            stack.callback(kept_attributes(self.model))
            self._listen(stack)
            stack.enter_context(torch.random.fork_rng(devices))
            stack.enter_context(torch.enable_grad())
            torch.func.functional_call(self.model, buffers, arguments, keywords, tie_weights=False)
        self.data = {torch.autograd.graph.get_gradient_edge(tensor).node: tensor for tensor in entered}

    def written_in_place(self) -> set[str]:
        """The names of the neurons whose spikes the model has written over."""
        return {name for (name, _), seen in self.neurons.items() if seen.spikes._version != seen.version}

    def not_at_their_seam(self) -> frozenset[str]:
        """The synapses that were called, but computed their currents in another way than PyTorch's layers do."""
        called = {name for *_, name in self._spans}
        owners = set(self.owners.values())
        return frozenset(name for name, each in self._gated.items() if name in called - owners and is_plain(each))

    def modules_around(self, node: Node) -> list[str]:
        """The names of the modules in whose calls a node was made, the innermost first."""
        number = creation_number(node)
        around = [span for span in self._spans if span[0] < number < span[1]]
        return [name for *_, name in sorted(around, key=lambda span: span[1] - span[0]) if name]

    def _listen(self, stack: ExitStack) -> None:
        for name, neuron in self._neurons.items():
            watch = StateWatch(neuron) if name in self.stepping else None
            handle = neuron.register_forward_pre_hook(partial(self._arrive, name, watch), with_kwargs=True)
            stack.callback(handle.remove)
            stack.callback(neuron.register_forward_hook(partial(self._fire, name, watch)).remove)
        for name, module in self._others.items():
            begins: list[int] = []
            stack.callback(module.register_forward_pre_hook(partial(self._enter, begins)).remove)
            stack.callback(module.register_forward_hook(partial(self._leave, name, begins)).remove)
        for name, module in self._gated.items():
            names = {} if is_plain(module) and name not in self.watched else weight_names(self.model, name)
            install_gate(name, module, partial(self._conduct, name), names, name in self.watched)
            stack.callback(remove_gate, module)

    def _enter(self, begins: list[int], *_: Any) -> None:
        begins.append(_now())

    def _leave(self, name: str, begins: list[int], *_: Any) -> None:
        if begins:
            self._spans.append((begins.pop(), _now(), name))

    def _next_use(self, name: str) -> Use:
        self.calls[name] = self.calls.get(name, 0) + 1
        return name, self.calls[name] - 1

    def _conduct(self, owner: str, name: str, call: SynapseCall) -> Tensor:
        if in_backward_pass():  # what a checkpoint recomputes
            return call.geometry.current(call.x, call.weight, call.bias)
        # A bias that is no parameter may be the current of another synapse.
        added = call.bias if call.bias is not None and call.bias.grad_fn is not None else None
        current = call.geometry.current(call.x, call.weight, None if added is not None else call.bias)
        if torch.is_grad_enabled() and not current.requires_grad:  # a frozen weight's, of silence
            current = _leaf(current)
        use = self._next_use(name)
        self.owners[name] = owner
        self.used_parameters.add(id(call.weight))
        self.used_parameters |= {id(parameter) for parameter in parameters_behind(call.weight)}
        with _recording():
            source = torch.autograd.graph.get_gradient_edge(call.x).node if call.x.requires_grad else None
        inside = self._firing[-1] if self._firing else None
        kept, recorded = call._replace(x=call.x.detach()), torch.is_grad_enabled()
        self.synapses[use] = SeenSynapse(kept, source, current.shape, inside, recorded)
        marked = _mark(current, "product" if is_one_to_one(call) else "current", use)
        return marked if added is None else marked + added

    def _arrive(
        self, name: str, watch: StateWatch | None, neuron: nn.Module, arguments: tuple[Any, ...], keywords: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if watch is not None and not watch.before(neuron, arguments, keywords):
            self.starts[name] = self.starts.get(name, 0) + 1
        use = self._next_use(name)
        current = current_of(neuron, arguments, keywords)
        if not current.requires_grad:
            current = _leaf(current)
        current = _mark(current, "input", use)
        layout, time_steps = time_of(neuron, current)
        self.neurons[use] = SeenNeuron(arguments, keywords, layout, time_steps, (current.grad_fn, current.shape))
        self._firing.append(use)
        return with_current(neuron, arguments, keywords, current)

    def _fire(self, name: str, watch: StateWatch | None, neuron: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        if watch is not None:
            watch.after(neuron, output)
        use = self._firing.pop()
        spikes = spikes_of(output)
        if not spikes.requires_grad:  # a neuron's first spikes may depend on nothing yet
            spikes = _leaf(spikes)
        marked = _mark(spikes, "spikes", use)
        seen = self.neurons[use]
        seen.spikes, seen.version = marked, marked._version
        return with_spikes(output, marked)


def _now() -> int:
    """The number that the next node of the graph gets."""
    with _recording():
        return creation_number(torch.zeros((), requires_grad=True).clone().grad_fn)


def run_example(model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> ExampleRun:
    """The example forward pass; of a batch of one, of that input twice.

    In a single input steps that are folded before the batch look like those that are folded behind it.
    """
    run = ExampleRun(model)
    run.run(arguments, keywords)
    watched = run.not_at_their_seam()
    if watched:
        run = ExampleRun(model, watched)
        run.run(arguments, keywords)
    if all(seen.batch > 1 or seen.layout.dim is None for seen in run.neurons.values()):
        return run
    for dim in (0, 1):
        try:
            twice = ExampleRun(model, watched)
            twice.run(*tree_map(_repeated(dim), (arguments, keywords)))
        except Exception:  # noqa: S112 - the model does not take it: one input shows what it shows
            continue
        same = twice.calls == run.calls and all(
            seen.batch == 2 * run.neurons[use].batch and seen.time_steps == run.neurons[use].time_steps
            for use, seen in twice.neurons.items()
        )
        if same:
            return twice
    return run


def _repeated(dim: int) -> Callable[[Any], Any]:
    def repeat(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() <= dim or leaf.shape[dim] != 1:
            return leaf
        return torch.cat([leaf, leaf], dim)

    return repeat
