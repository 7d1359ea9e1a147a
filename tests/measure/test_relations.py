import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from tracegrad.core.attaching.attach import attach
from tracegrad.core.equations.scaling import register_scaling
from tracegrad.measure.relations import STATISTICS, distribution, kernel_mean, measure_relations, scale
from tracegrad.snn.models.resnet import ResNet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ResNet([1, 1], num_classes=3, in_channels=1, width=4)


@pytest.fixture
def images():
    return torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_relations_are_those_of_a_training_step(model, images, time):
    measured = measure_relations(model, images, alpha=0.3, time=time)
    attachment = attach(model, images[:1], alpha=0.3, time=time, record=True)
    loss = nn.functional.cross_entropy(model(images).mean(0), torch.tensor([0, 1, 2, 0, 1]))
    loss.backward()
    assert measured.keys() == attachment.relations.keys()
    for name, relation in attachment.relations.items():
        torch.testing.assert_close(measured[name], relation, rtol=0, atol=0, msg=name)


def test_nothing_of_the_model_and_the_process_changes(model, images):
    model.eval()
    attachment = attach(model, images[:1], alpha=0.3)
    model(images).sum().backward()
    before = copy.deepcopy((model.state_dict(), [p.grad for p in model.parameters()], torch.get_rng_state()))
    measure_relations(model, images, alpha=0.3)
    after = (model.state_dict(), [p.grad for p in model.parameters()], torch.get_rng_state())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not any(module.training for module in model.modules())
    attachment.detach()  # raises nothing: it is still attached


def test_it_works_where_gradients_are_off(model, images):
    with torch.no_grad():
        assert measure_relations(model, images, alpha=0.1)


def test_a_bad_option_is_refused(model, images):
    with pytest.raises(ValueError, match="unknown relation 'negative'"):
        measure_relations(model, images, relation="negative")


def test_scale_is_the_factor_of_equation_7():
    relation = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    torch.testing.assert_close(scale(relation, 0.2), torch.tensor([[0.8, 0.9], [1.0, 0.85]]))


def test_scale_of_a_registered_scaling():
    register_scaling("halved-for-test")(lambda gradient, relation, alpha: gradient * relation / 2)
    torch.testing.assert_close(scale(torch.tensor([0.5, 1.0]), 0.2, "halved-for-test"), torch.tensor([0.25, 0.5]))


def test_distribution_of_evenly_spread_values():
    found = distribution(torch.linspace(0, 1, 101).reshape(1, 101)[:, torch.randperm(101)])
    assert tuple(found) == STATISTICS
    assert list(found.values()) == pytest.approx([0.5, 0.05, 0.25, 0.5, 0.75, 0.95])


@pytest.mark.parametrize("size", [1, 2, 3, 20, 997, 2**24 + 3])
def test_distribution_is_that_of_numpy(size):
    values = torch.randn(size, generator=torch.Generator().manual_seed(size))
    found, entries = distribution(values), values.double().numpy()
    expected = [entries.mean(), *np.quantile(entries, [0.05, 0.25, 0.5, 0.75, 0.95])]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_distribution_of_no_numbers_is_that_of_numpy(odd):
    values = torch.tensor([0.5, odd, 0.25, 4.0])
    with np.errstate(invalid="ignore"):
        expected = np.quantile(values.double().numpy(), [0.05, 0.25, 0.5, 0.75, 0.95])
    found = distribution(values)
    np.testing.assert_array_equal(list(found.values())[1:], expected)
    np.testing.assert_array_equal(found["mean"], odd)


def test_distribution_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        distribution(torch.zeros(0))


@pytest.mark.parametrize("steps", [(), (4,)])
@pytest.mark.parametrize("synapse", [nn.Conv2d(3, 2, (3, 1)), nn.Conv1d(4, 2, 3, groups=2), nn.Linear(5, 3)])
def test_kernel_mean_is_a_mean_over_time_and_positions(synapse, steps):
    shape = synapse.weight.shape
    relation = torch.rand(*steps, *shape)
    expected = relation.numpy().reshape(-1, *shape).mean(0).reshape(*shape[:2], -1).mean(-1)
    np.testing.assert_allclose(kernel_mean(relation, synapse).numpy(), expected, rtol=1e-6)
