"""A recurrent network learns the digits row by row, eight steps each, with its recurrent gradient scaled."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.snn.surrogate import SURROGATES, spike


@partial(tg.register_neuron, step=True, state="membrane", reset="its membrane = None")
class Cell(nn.Module):
    """A leaky neuron with a soft reset, one step a call."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        before = current if self.membrane is None else 0.9 * self.membrane + current
        spikes = spike(before - 0.5, SURROGATES["triangle"])
        self.membrane = before - 0.5 * spikes
        return spikes


class RowByRow(nn.Module):
    """Digits [B, 8, 8]: one row a step, into a layer of neurons that also get their own spikes of the step before."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.rows, self.recurrent, self.neuron = nn.Linear(8, hidden), nn.Linear(hidden, hidden, bias=False), Cell()
        self.head = nn.Linear(hidden, 10)
        nn.init.normal_(self.rows.weight, 0, 0.6)
        nn.init.normal_(self.recurrent.weight, 0, 0.7 / hidden**0.5)

    def forward(self, digits: Tensor) -> Tensor:
        self.neuron.membrane = None
        spikes, membrane = torch.zeros(len(digits), self.recurrent.in_features), torch.zeros(len(digits), 10)
        for row in digits.unbind(1):
            spikes = self.neuron(self.rows(row) + self.recurrent(spikes))
            membrane = 0.9 * membrane + self.head(spikes)
        return membrane


@pytest.mark.slow
def test_digits_row_by_row_over_90_percent() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float() / 16, torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, test = order[:1400], order[1400:]
    model = RowByRow()
    attachment = tg.attach(model, images[:2])
    assert attachment.pairs == [("recurrent", "neuron")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25)
    for _ in range(25):
        for batch in train[torch.randperm(len(train))].split(50):
            optimizer.zero_grad()
            noisy = images[batch] + 0.15 * torch.randn_like(images[batch])
            F.cross_entropy(model(noisy), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
    assert accuracy > 0.9, f"{accuracy:.1%} of the digits that it was not trained on"
