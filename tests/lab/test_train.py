import pytest

from tracegrad.lab.recipe.parts import Training
from tracegrad.lab.train import learning_rate


def test_step_schedule():
    training = Training(epochs=300, learning_rate=0.1, schedule="step", decay_every=100, decay_factor=0.1)
    rates = [learning_rate(training, epoch) for epoch in (0, 99, 100, 199, 200, 299)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_cosine_schedule():
    training = Training(epochs=10, learning_rate=0.2, schedule="cosine")
    rates = [learning_rate(training, epoch) for epoch in range(10)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert rates[9] > 0
