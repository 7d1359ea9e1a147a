"""Models and neurons that are called by keyword."""

import pytest
import torch
from spiking import Stateful, TimeFirst
from torch import Tensor, nn

import tracegrad as tg
from reference import assert_differ, loss_of

T, B = 4, 3


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.n = nn.Linear(6, 5), tg.LIF()

    def forward(self, *, frames: Tensor) -> Tensor:
        return self.n(currents=self.fc(frames))


class StepByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.n = nn.Linear(6, 5), Stateful()

    def forward(self, frames: Tensor, *, gain: Tensor) -> Tensor:
        self.n.reset()
        return torch.stack([self.n(current=gain * self.fc(frame)) for frame in frames])


class Mapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.n = nn.Linear(6, 5), TimeFirst()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.n(currents=self.fc(input=batch["frames"]))


CALLS = {
    "keywords alone": (ByKeyword, (), {"frames": spikes(T, B, 6)}),
    "a keyword more": (StepByKeyword, (spikes(T, B, 6),), {"gain": torch.tensor(1.5)}),
    "a mapping": (Mapping, ({"frames": spikes(T, B, 6)},), {}),
}


@pytest.mark.parametrize(("network", "arguments", "keywords"), CALLS.values(), ids=CALLS)
def test_models_and_neurons_that_are_called_by_keyword(
    network: type[nn.Module], arguments: tuple, keywords: dict[str, Tensor]
) -> None:
    torch.manual_seed(0)
    model = network()
    loss_of(model(*arguments, **keywords)).backward()
    plain = model.fc.weight.grad.clone()
    attachment = tg.attach(model, arguments, example_kwargs=keywords, spiking_input=True, alpha=0.9)
    assert attachment.pairs == [("fc", "n")]
    model.zero_grad()
    loss_of(model(*arguments, **keywords)).backward()
    assert_differ({"weight": model.fc.weight.grad}, {"weight": plain})
