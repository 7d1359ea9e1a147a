"""Currents that the model writes over in place, on their way to the neuron."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg


class Net(nn.Module):
    def __init__(self, write: Callable[[Tensor, Tensor], object], view: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.neuron, self.write, self.view = tg.LIF(), write, view

    def forward(self, x: Tensor) -> Tensor:
        left, right = (synapse(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for synapse in (self.a, self.b))
        # As behind a layer that folds time: a view of something else, or a tensor of its own.
        current = left.flatten(0, 1).clone().unflatten(0, x.shape[:2]) if self.view else left.clone()
        self.write(current, right)
        return self.neuron(current)


def attached(write: Callable[[Tensor, Tensor], object], view: bool) -> tg.Attachment:
    return tg.attach(Net(write, view), torch.ones(4, 2, 2, 5, 5), spiking_input=True, allow_empty=True)


@pytest.mark.parametrize("view", [True, False], ids=["view", "whole"])
@pytest.mark.parametrize("write", [Tensor.add_, Tensor.sub_], ids=["add", "subtract"])
def test_what_is_added_pairs(write: Callable[[Tensor, Tensor], object], view: bool) -> None:
    attachment = attached(write, view)
    assert attachment.pairs == [("a", "neuron"), ("b", "neuron")], str(attachment)


@pytest.mark.parametrize(
    ("write", "paired", "reason"),
    [
        (lambda c, other: c.transpose(-1, -2).add_(other), ["a"], "permuted"),
        (lambda c, other: c[:, :, :1].add_(other[:, :, :1]), ["a"], "Slice"),
        (lambda c, other: c.mul_(other), [], "does more than add"),
        (lambda c, _: c.cumsum_(0), [], "does more than add"),
        (lambda c, _: c.relu_(), [], "a part of its current alone"),
    ],
    ids=["transposed", "a part", "product", "sum over time", "rectified"],
)
def test_what_does_not_is_told(write: Callable[[Tensor, Tensor], object], paired: list[str], reason: str) -> None:
    attachment = attached(write, True)
    assert [synapse for synapse, _ in attachment.pairs] == paired, str(attachment)
    assert any(reason in told for _, told in attachment.skipped), str(attachment)
