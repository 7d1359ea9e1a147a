"""Gradient scaling on a model: what is scaled, what is not and why, and what can be changed while it is there."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.core.attaching.installation import Installation
from tracegrad.core.attaching.table import table
from tracegrad.core.equations.alpha import checked_alpha
from tracegrad.core.equations.masking import StepMask
from tracegrad.core.pairing.pairs import Pairing
from tracegrad.core.pairing.refusals import refused_synapses


class Attachment:
    """Gradient scaling on a model: what is scaled, what is not and why.

    Attributes:
        pairs: (synapse name, neuron name), in the model's order. A synapse is called by the name of its module, or by
            that of its parameter where that is not the module's `weight`. Frozen weights pair, too.
        skipped: (synapse name, reason) of what is left unscaled.
    """

    def __init__(self, installation: Installation) -> None:
        model, pairing = installation.model, installation.pairing
        self.pairs = _pairs(model, pairing)
        self.skipped = refused_synapses(model, pairing)
        self._installation = installation

    @property
    def relations(self) -> dict[str, Tensor]:
        """With `record=True`, each synapse's normalised relation of the last backward pass.

        [T, *weight.shape] for `time="per_step"`, else weight.shape. Of a synapse that is used more than once, the use
        that the backward pass reached last.
        """
        return self._installation.relations

    @property
    def alpha(self) -> float | dict[str, float]:
        """The interpolation coefficient: one number, or by synapse where they differ.

        Set it to a number or to {synapse: number} at any time; what is not named there keeps its own. It counts from
        the next backward pass on; where `torch.compile` has compiled the model, from the next forward pass on.

        Raises:
            TypeError: alpha is no number.
            ValueError: alpha outside [0, 1], or a synapse that is not scaled.
        """
        alphas = {name: synapse.rule.alpha for name, synapse in self._installation.synapses.items()}
        if len(set(alphas.values())) == 1:
            return next(iter(alphas.values()))
        return alphas or self._installation.rule.alpha

    @alpha.setter
    def alpha(self, alpha: float | Mapping[str, float]) -> None:
        synapses = self._installation.synapses
        alphas = dict(alpha) if isinstance(alpha, Mapping) else dict.fromkeys(synapses, alpha)
        for name, value in alphas.items():
            if name not in synapses:
                raise ValueError(f"{name!r} is no synapse that is scaled; these are {', '.join(synapses)}")
            alphas[name] = checked_alpha(value)
        for name, value in alphas.items():
            self._installation.set_alpha(name, value)

    @contextmanager
    def mask(self, counted: Tensor) -> Generator[None]:
        """Around a forward pass: which steps of which examples count in the relation, as for padded sequences.

        A masked spike is 0 in its trace (Eq. 5), masked products are left out of R; "final" takes each example's last
        step that counts, and "mean" divides each example by the number of its own. So a padded batch has the sum of the
        relations that each of its sequences would have as it is.

        Args:
            counted: bool, [T, B], or [B] for whole examples; True counts. Where the model is called step by step, its
                rows are the steps since the sequence began.

        Raises:
            TypeError: not a bool tensor.
            ValueError: of other than one or two dimensions, or (in the forward pass) fewer steps or examples.
        """
        kind = getattr(counted, "dtype", type(counted).__name__)
        if kind != torch.bool:
            raise TypeError(f"a mask is a tensor of bool, True where a step counts, not {kind}")
        if counted.dim() not in (1, 2):
            raise ValueError(f"a mask is [T, B] or [B], not of shape {list(counted.shape)}")
        before, self._installation.mask = self._installation.mask, StepMask(counted)
        try:
            yield
        finally:
            self._installation.mask = before

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs of the attachment: alpha, and what a control keeps.

        The model's own state holds nothing of it.
        """
        synapses = self._installation.synapses.items()
        state: dict[str, Any] = {"alpha": {name: synapse.rule.alpha for name, synapse in synapses}}
        if self._installation.rule.control.keeps:
            state["control"] = {name: synapse.memory.state_dict() for name, synapse in synapses}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` of an attachment to such a model has returned.

        Raises:
            ValueError: not the state of an attachment with this control, a synapse that is not scaled here, or alpha
                outside [0, 1].
        """
        if "alpha" not in state:
            raise ValueError(f"not the state of an attachment, which has the key 'alpha': {', '.join(state)}")
        control, synapses = self._installation.rule.control, self._installation.synapses
        kept = state.get("control", {})
        if kept.keys() != (synapses.keys() if control.keeps else set()):
            raise ValueError(f"not the state of an attachment with control={control.name!r} to such a model")
        self.alpha = state["alpha"]
        for name, memory in kept.items():
            synapses[name].memory.load_state_dict(memory)

    def detach(self) -> None:
        """Takes the scaling off; the model is as it was before. Calling it again does nothing."""
        self._installation.remove()

    def __str__(self) -> str:
        ways = {name: synapse.way for name, synapse in self._installation.synapses.items()}
        return table(self._installation.model, self._installation.pairing, self.pairs, self.skipped, ways)


def _pairs(model: nn.Module, pairing: Pairing) -> list[tuple[str, str]]:
    order = {name: position for position, (name, _) in enumerate(model.named_modules())}
    found = {(use[0], neuron) for use, neuron in pairing.paired()}
    return sorted(found, key=lambda pair: (order[pairing.owners[pair[0]]], pair[0], order[pair[1]]))
