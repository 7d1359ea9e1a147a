"""Models take the event kernels by themselves: in float64 their twins, wherever events are asked for always."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg

IMAGES, SEQUENCE = torch.randn(2, 3, 16, 16), (torch.rand(5, 3, 6) < 0.4).float()
RECURRENT = partial(tg.models.recurrent, num_classes=5, in_channels=6, hidden=8, layers=2)


@pytest.mark.parametrize(
    ("build", "x", "calls"),
    [
        (partial(tg.models.resnet, blocks=[2, 1], width=4), IMAGES, 6 + 2),
        (
            partial(tg.models.resnet, blocks=[1, 1], width=4, block="sew"),
            IMAGES,
            2 * 2,
        ),  # sums of spikes go the dense way
        (partial(tg.models.resnet, blocks=[2, 1], width=4, block="ms"), IMAGES, 6),
        (partial(tg.models.vgg11, width=4), IMAGES, 7),
        (RECURRENT, SEQUENCE, 2 + 2 * 5),
    ],
    ids=["basic", "sew", "ms", "vgg11", "recurrent"],
)
def test_outputs_and_gradients_are_the_dense_ones(
    build: Callable[..., nn.Module], x: Tensor, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, found = build().double(), {}
    for events in ("0", "1"):
        monkeypatch.setenv("TRACEGRAD_EVENTS", events)
        model.zero_grad()
        outputs = model(x.double())
        taken = calls_of(outputs, "_SpikeConvolutionBackward")
        assert taken == (calls if events == "1" else 0)
        outputs.square().sum().backward()
        found[events] = [outputs, *(parameter.grad.clone() for parameter in model.parameters())]
    for by_events, dense in zip(found["1"], found["0"], strict=True):
        torch.testing.assert_close(by_events, dense, rtol=1e-9, atol=1e-12)


def calls_of(outputs: Tensor, name: str) -> int:
    """How many nodes of the outputs' graph have that name."""
    waiting, seen, count = [outputs.grad_fn], set(), 0
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        count += node.name() == name
        waiting += [before for before, _ in node.next_functions]
    return count
