"""One top-level forward pass of a model with scaling attached: the gates, and the tokens on their way between them."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tracegrad.core.gate import close_gate, open_gate
from tracegrad.core.graph import Use
from tracegrad.core.pairing import Pairing
from tracegrad.core.synapse import Geometry

if TYPE_CHECKING:
    from tracegrad.core.attach import Attachment


class Session:
    """What one forward pass knows so far; dropped when it ends.

    Args:
        pairing: of the model.
        time_steps: T where the input tells it, else None until the first neuron fires.
    """

    def __init__(self, pairing: Pairing, time_steps: int | None) -> None:
        self.pairing = pairing
        self.time_steps = time_steps
        self.with_gradients = torch.is_grad_enabled()
        self.calls: dict[str, int] = {}
        self.tokens: dict[Use, Tensor] = {}

    def next_use(self, name: str) -> Use:
        """Counts a call of a module.

        Raises:
            ValueError: more calls than the example forward pass made.
        """
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        if call >= self.pairing.calls.get(name, 0):
            raise ValueError(
                f"{name} is called more often ({call + 1} times) than in attach's example forward pass "
                f"({self.pairing.calls.get(name, 0)} times); attach with an example that takes the same path"
            )
        return name, call

    def fire(self, name: str, spikes: Tensor) -> None:
        """Notes T from a neuron's spikes [T, B, ...].

        Raises:
            ValueError: another T than before in this forward pass.
        """
        time_steps = spikes.shape[0]
        if self.time_steps is not None and self.time_steps != time_steps:
            raise ValueError(
                f"neuron {name} fired over T = {time_steps} steps, but T = {self.time_steps} earlier in the same "
                "forward pass; T must not change within one call"
            )
        self.time_steps = time_steps


class Unpicklable:
    """Copied deeply with its model, but not pickled with it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unpicklable":
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return duplicate

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a model with gradient scaling attached can't be pickled: call detach() first, or save model.state_dict()"
        )


class Begin(Unpicklable):
    """Forward pre-hook of the model: a session begins."""

    def __init__(self, attachment: "Attachment") -> None:
        self.attachment = attachment

    def __call__(self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Begins the session."""
        time_steps = None
        if self.attachment.spiking_input:
            inputs = (*arguments, *keywords.values())
            time_steps = next(value.shape[0] for value in inputs if isinstance(value, Tensor))
        self.attachment.session = Session(self.attachment.pairing, time_steps)


class End(Unpicklable):
    """Forward hook of the model: the session ends, also where the forward pass failed."""

    def __init__(self, attachment: "Attachment") -> None:
        self.attachment = attachment

    def __call__(self, _: nn.Module, __: Any, ___: Any) -> None:
        """Ends the session."""
        self.attachment.session = None


class SynapseGate(Unpicklable):
    """Computes a synapse's current and leaves a token for its neurons."""

    def __init__(self, attachment: "Attachment", name: str, geometry: Geometry) -> None:
        self.attachment = attachment
        self.name = name
        self.geometry = geometry
        self.ran_without_gradients = False

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The synaptic current."""
        session = self.attachment.session
        use = session.next_use(self.name) if session else None
        if not torch.is_grad_enabled():
            self.ran_without_gradients = session is not None and session.with_gradients
            return self.geometry.current(x, weight, bias)
        if session is None:
            self._check_recomputation()
        current, token = open_gate(
            x, weight, bias, self.geometry, self.attachment.rule, self._time_steps(x), self._recorder()
        )
        if session and use:
            session.tokens[use] = token
        return current

    def _check_recomputation(self) -> None:
        """A checkpoint recomputes outside of the forward pass: only what is saved counts then, no token is needed."""
        # PyTorch's own checkpoints tell a running backward pass in this way; there is no public one.
        if torch._C._current_graph_task_id() == -1:  # pyright: ignore[reportPrivateUsage]
            raise RuntimeError(
                f"{self.name} was called outside of its model's forward pass, where its neurons can't be told: "
                "call the model itself (not model.forward or a part of it), or detach() first"
            )
        if self.ran_without_gradients:
            raise RuntimeError(
                f"{self.name} is recomputed by a reentrant checkpoint, which hides it from gradient scaling: "
                "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )

    def _time_steps(self, x: Tensor) -> int:
        session = self.attachment.session
        if session is None or session.time_steps is None:
            return x.shape[0]
        if x.shape[0] % session.time_steps:
            raise ValueError(
                f"the input of {self.name} has shape {list(x.shape)}; its first dimension must be T = "
                f"{session.time_steps}, or T * B folded time-major"
            )
        return session.time_steps

    def _recorder(self) -> Any:
        if not self.attachment.record:
            return None
        if torch.compiler.is_compiling():
            raise RuntimeError("record=True needs an eager backward pass: attach with record=False to compile")
        return self.keep_relation

    def keep_relation(self, relation: Tensor) -> None:
        """Keeps the normalised relation of the backward pass that just ran."""
        self.attachment.relations[self.name] = relation


class NeuronGate(Unpicklable):
    """Forward hook of a neuron: ties its spikes to the tokens of the currents that drove it."""

    def __init__(self, attachment: "Attachment", name: str) -> None:
        pairing = attachment.pairing
        self.attachment = attachment
        self.name = name
        self.receives = any(neuron == name for neuron, _ in pairing.receivers)
        self.clone = name in pairing.written_in_place

    def __call__(self, _: nn.Module, __: Any, spikes: Tensor) -> Tensor:
        """The spikes, unchanged."""
        session = self.attachment.session
        tokens: list[Tensor] = []
        if session is not None:
            session.fire(self.name, spikes)
            sources = session.pairing.receivers.get(session.next_use(self.name), [])
            tokens = [session.tokens[use] for use in sources if use in session.tokens]
        if not (self.receives and torch.is_grad_enabled()):
            return spikes
        for token in tokens:
            if token.numel() != spikes.numel():
                raise ValueError(
                    f"neuron {self.name} fired spikes of shape {list(spikes.shape)} for a current of shape "
                    f"{list(token.shape)}; they must have as many elements, in the same order"
                )
        return close_gate(spikes, tokens, self.clone)
