from dataclasses import replace

import pytest

from tracegrad.lab.data import DataOptions
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import Method, Model, Neuron
from tracegrad.lab.report.paper import reported_for, reported_results

METHODS = {"plain": Method(alpha=0.0), "scaled": Method(alpha=0.1, time="mean")}


def of(dataset, network, reset, methods=METHODS):
    return Recipe(data=DataOptions(dataset), model=Model(network, neuron=Neuron(reset=reset)), methods=methods)


def test_all_rows_are_there():
    tables = [row.table for row in reported_results()]
    assert [tables.count(table) for table in (1, 2, 3)] == [8, 8, 7]


@pytest.mark.parametrize(
    ("dataset", "network", "reset", "baseline", "scaled"),
    [
        ("cifar10", "resnet20", "soft", (94.91, 94.97, 497, 520), (95.05, 95.11, 492, 506)),
        ("cifar10", "resnet32", "hard", (90.52, 90.71, 555, 572), (90.57, 90.91, 563, 571)),
        ("cifar100", "resnet32", "soft", (75.57, 75.79, 959, 984), (75.45, 75.73, 954, 979)),
    ],
)
def test_numbers_of_a_setting(dataset, network, reset, baseline, scaled):
    found = reported_for(of(dataset, network, reset))
    for method, numbers in (("baseline", baseline), ("gradient-scale", scaled)):
        row = found[method]
        assert (row.accuracy_mean, row.accuracy_max, row.spikes_mean, row.spikes_max) == numbers, method


def test_only_methods_of_the_recipe():
    baseline = of("cifar10", "resnet20", "soft", {"baseline": Method(alpha=0.0), "more": Method(alpha=0.5)})
    assert list(reported_for(baseline)) == ["baseline"]


@pytest.mark.parametrize("change", [{"data": DataOptions("digits")}, {"model": Model("resnet")}])
def test_nothing_for_other_experiments(change):
    assert reported_for(replace(of("cifar10", "resnet20", "soft"), **change)) == {}
