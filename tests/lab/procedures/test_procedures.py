"""A study with a method of every kind: what each run writes, and what can be asked of it afterwards."""

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lab.same import assert_same_run
from lab.watching import Interrupt
from tracegrad.core.neurons import is_neuron
from tracegrad.lab.data import Batches, load
from tracegrad.lab.evaluate import evaluate_split
from tracegrad.lab.export import export_run
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.report.evaluation import evaluate_run
from tracegrad.lab.report.writing import write_report, write_study
from tracegrad.lab.runs.run import Run, plan, read_run
from tracegrad.lab.studies.checks import check_runs
from tracegrad.lab.studies.study import run_all
from tracegrad.lab.studies.train_run import train_run
from tracegrad.methods.qcfs import QCFS


@pytest.fixture(scope="module")
def digits300(comparison):
    return load(comparison.data)


TRAINED = ["baseline", "tet-gradient-scale", "tebn", "qcfs", "quantized", "synchrony", "offline", "online", "relu"]


def result(study, method):
    return json.loads((study / method / "seed-0" / "result.json").read_text())


def rows(path):
    return {row[0]: row for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8")))}


def test_sources_are_trained_before_what_starts_from_them(comparison, tmp_path):
    order = [run.name for run in plan(comparison, tmp_path)]
    assert sorted(order) == sorted(comparison.methods)
    for name, method in comparison.methods.items():
        assert method.source is None or order.index(method.source) < order.index(name)


def test_every_run_says_what_it_costs(study, comparison):
    for method in comparison.methods:
        found = result(study, method)
        assert 0 <= found["test_accuracy"] <= 1
        assert 0 <= found["validation_accuracy"] <= 1
        assert found["parameters"] > 0
        assert found["peak_memory_mb"] is None or found["peak_memory_mb"] > 50
        assert found["spikes_per_image"] == pytest.approx(sum(found["spikes_per_layer"].values()))
        assert found["spikes_per_layer"].keys() == found["neurons_per_layer"].keys()
        if method != "stdp":
            macs, acs = found["multiply_accumulates_per_image"], found["accumulates_per_image"]
            assert found["energy_per_image_uj"] == pytest.approx((4.6 * macs + 0.9 * acs) / 1e6)


def test_a_network_without_spikes_multiplies_and_does_not_fire(study):
    relu, baseline = result(study, "relu"), result(study, "baseline")
    assert (relu["spikes_per_image"], relu["time_steps"], relu["accumulates_per_image"]) == (0, 1, 0)
    assert baseline["spikes_per_image"] > 0
    assert baseline["accumulates_per_image"] > 0
    assert baseline["multiply_accumulates_per_image"] == 4 * 22**2  # 3 x 3 within 8 x 8 pixels, four channels
    assert relu["parameters"] == baseline["parameters"]


def test_the_spikes_of_a_quantized_network_are_the_levels_of_its_activations(study):
    found, relu = result(study, "quantized"), result(study, "relu")
    trained = TrainedRun.read(study / "quantized/seed-0")
    network, sums = trained.network(), {}
    for name, module in network.named_modules():
        if isinstance(module, QCFS):
            levels = {round(level / 3, 6): level for level in range(4)}

            def count(module, _inputs, output, name=name, levels=levels):
                parts = (output / module.lam).flatten().tolist()
                sums[name] = sums.get(name, 0) + sum(levels[round(part, 6)] for part in parts)

            module.register_forward_hook(count)
    with torch.no_grad():
        for image, _ in Batches(trained.dataset.test, 60, dataset=trained.dataset, seed=0):
            network(image)
    assert found["spikes_per_layer"] == {name: pytest.approx(count / 360) for name, count in sums.items()}
    assert found["neurons_per_layer"] == result(study, "baseline")["neurons_per_layer"]
    assert 0 < found["spikes_per_image"] < 3 * sum(found["neurons_per_layer"].values())
    assert (found["time_steps"], found["accumulates_per_image"]) == (1, 0)
    assert found["source_accuracy"] is None
    assert found["multiply_accumulates_per_image"] == relu["multiply_accumulates_per_image"]


def test_synchrony_trains_as_the_baseline_does_until_its_warm_up_ends(study):
    losses = [
        [
            float(row["train_loss"])
            for row in csv.DictReader((study / method / "seed-0/metrics.csv").read_text().splitlines())
        ]
        for method in ("baseline", "synchrony")
    ]
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_sources_have_the_accuracy_that_the_table_gives(study):
    relu = result(study, "relu")["test_accuracy"]
    for method in ("light", "advanced", "offline", "online"):
        assert result(study, method)["source_accuracy"] == relu
    assert result(study, "baseline")["source_accuracy"] is None
    trained = TrainedRun.read(study / "qcfs/seed-0")
    source = procedure_of(trained.run.method).trained(trained.run, trained.weights, trained.task)
    measured = evaluate_split(source, trained.dataset.test, trained.run.setting, trained.dataset)
    assert result(study, "qcfs")["source_accuracy"] == measured.accuracy


def test_a_calibrated_network_is_near_its_source(study):
    for method in ("light", "advanced"):
        found = result(study, method)
        assert abs(found["test_accuracy"] - found["source_accuracy"]) < 0.1, method


def test_changes_are_those_of_one_method(study, comparison):
    def setting(method):
        return read_run(study / method / "seed-0").setting

    assert setting("tet-gradient-scale").objective == "tet"
    assert setting("baseline").objective == "mean_cross_entropy"
    assert setting("tebn").model.options == {"blocks": [1], "width": 4, "norm": "tebn"}
    assert setting("online").model.time_steps == 8
    for method in comparison.methods:
        assert setting(method).training == comparison.training


def test_the_table_has_a_row_for_every_method(study, comparison):
    table = rows(study / "table.csv")
    header = table.pop("Method")
    assert list(table) == list(comparison.methods)
    assert header[:6] == ["Method", "T", "Accuracy (%) mean", "± std", "max", "Source (%)"]
    assert [table[name][1] for name in ("baseline", "relu", "light", "stdp")] == ["4", "1", "16", "150"]
    assert float(table["qcfs"][2]) == pytest.approx(100 * result(study, "qcfs")["test_accuracy"], abs=0.0051)
    assert (table["baseline"][5], table["stdp"][header.index("Energy (µJ)")]) == ("–", "–")
    assert "Energy per image (µJ), estimated" in (study / "figure.svg").read_text(encoding="utf-8")


def test_run_again_nothing_is_trained(study, comparison, tmp_path):
    copy, console = shutil.copytree(study, tmp_path / "comparison"), Console(file=io.StringIO(), width=200)
    before = (copy / "table.md").read_text()
    run_all(plan(comparison, copy), console)
    write_study(comparison, copy)
    assert console.file.getvalue().count("complete already") == len(comparison.methods)
    assert (copy / "table.md").read_text() == before


def test_a_report_holds_all_kinds(study, tmp_path):
    text = write_report([study], tmp_path / "report.html").read_text(encoding="utf-8")
    for method in ("light", "online", "stdp"):
        assert method in text
    assert len(list(tmp_path.glob("report-comparison-*.csv"))) == 4


@pytest.mark.parametrize("method", ["relu", "quantized", "tebn", "synchrony", "qcfs", "advanced", "online", "stdp"])
def test_every_kind_is_evaluated_and_exported(method, study, tmp_path):
    folder = shutil.copytree(study / method / "seed-0", tmp_path / "study" / method / "seed-0")
    time_steps = {"relu": None, "quantized": None, "tebn": None, "stdp": []}.get(method, [2])
    evaluation = evaluate_run(folder, time_steps=time_steps)
    found = result(study, method)
    own = found["time_steps"]
    assert evaluation.accuracy[own] == found["test_accuracy"]
    assert evaluation.spikes_per_image[own] == found["spikes_per_image"]
    assert list(evaluation.accuracy) == ([own] if method in ("relu", "quantized", "tebn", "stdp") else [2, own])
    assert sum(map(sum, evaluation.confusion)) == 360
    weights = load_file(export_run(folder))
    assert weights.keys() == TrainedRun.read(folder).network().state_dict().keys()


def test_a_converted_network_has_spiking_neurons(study):
    for method in ("qcfs", "light", "offline"):
        network = TrainedRun.read(study / method / "seed-0").network()
        assert sum(map(is_neuron, network.modules())) == 3, method


@pytest.mark.parametrize("method", TRAINED)
def test_a_run_goes_on_where_it_was_interrupted(method, study, digits300, tmp_path, comparison):
    whole = study / method / "seed-0"
    shutil.copytree(study / "relu", tmp_path / "relu")
    run = Run(
        tmp_path / "again" / "seed-0" if method == "relu" else tmp_path / method / "seed-0", comparison.only(method, 0)
    )
    with pytest.raises(KeyboardInterrupt, match="1 of 2 epochs are saved"):
        train_run(run, digits300, Interrupt(1))
    train_run(run, digits300)
    assert_same_run(run.folder, whole)


@pytest.mark.parametrize("method", ["light", "stdp"])
def test_conversions_and_stdp_begin_again_and_end_the_same(method, study, tmp_path, comparison):
    copy = shutil.copytree(study, tmp_path / "comparison")
    (copy / method / "seed-0" / "result.json").unlink()
    run_all([run for run in plan(comparison, copy) if run.name == method], Console(file=io.StringIO()))
    assert result(copy, method)["test_accuracy"] == result(study, method)["test_accuracy"]
    weights = [TrainedRun.read(folder / method / "seed-0").weights for folder in (copy, study)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def refused(recipe, folder, message):
    runs = plan(recipe, folder)
    with pytest.raises(ValueError, match=message) as error:
        check_runs(runs, planned=runs)
    assert "\n" not in str(error.value)


def with_method(recipe, name, **options):
    methods = {"relu": recipe.methods["relu"], name: replace(recipe.methods[name], **options)}
    return replace(recipe, methods=methods)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("light", {"source": None}, "method 'light' of kind 'calibration' needs a source"),
        ("baseline", {"source": "relu"}, "method 'baseline' of kind 'direct' takes no source"),
        ("light", {"options": {"mode": "heavy"}}, "mode must be 'light' or 'advanced', not 'heavy'"),
        ("light", {"options": {"levels": 4}}, "unknown field options.levels; a method of kind calibration has"),
        ("light", {"options": {"images": 0}}, "images must be from 1 to the 300 for training, not 0"),
        ("qcfs", {"options": {"start": -1.0}}, "start must be above 0, not -1.0"),
        ("qcfs", {"options": {"levels": 0}}, "levels must be at least 1, not 0"),
        ("quantized", {"options": {"levels": 0}}, "levels must be at least 1, not 0"),
        (
            "synchrony",
            {"options": {"synapses": {"head": None}}},
            "'head' is no linear layer of ResNet, which has class",
        ),
        ("synchrony", {"options": {"warm_up": 2.0}}, "options.warm_up must be from 0 to 1, not 2.0"),
        ("synchrony", {"changes": {"training": {"devices": 2}}}, "training.devices of kind synchrony must be 1, not 2"),
        ("stdp", {"options": {"neurons": 0}}, "options.neurons must be greater than or equal to 1, not 0"),
        ("stdp", {"options": {"neurons": 10**9}}, "options.neurons must be less than or equal to 20000, not 10{9}"),
        ("stdp", {"options": {"images": 0}}, "options.images must be greater than or equal to 1, not 0"),
        ("stdp", {"options": {"images": -5}}, "options.images must be greater than or equal to 1, not -5"),
        ("stdp", {"options": {"epochs": 0}}, "options.epochs must be greater than or equal to 1, not 0"),
        ("baseline", {"kind": "direkt"}, "unknown kind of method 'direkt'; the known ones are 'calibration', 'direct'"),
        ("relu", {"changes": {"objective": "membrane_cross_entropy"}}, "reads more than the mean over time"),
        (
            "offline",
            {"changes": {"model": {"options": {"width": 8}}}},
            "method 'offline' and its source 'relu' must have the same model.options",
        ),
    ],
)
def test_what_does_not_fit_stops_before_anything_is_trained(name, options, message, comparison, tmp_path):
    refused(with_method(comparison, name, **options), tmp_path, message)


def test_a_source_that_is_missing_or_of_another_kind(comparison, tmp_path):
    refused(comparison.only("light", 0), tmp_path, "light, seed 0 starts from relu, and .* holds no complete run")
    methods = {"relu": Method(alpha=0.0), "light": comparison.methods["light"]}
    refused(replace(comparison, methods=methods), tmp_path, "method 'light' must be of kind 'relu', not 'direct'")
    circle = {name: replace(comparison.methods["light"], source=other) for name, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(ValueError, match="methods are each other's source"):
        plan(replace(comparison, methods=circle), tmp_path)


def test_a_single_method_starts_from_the_source_in_its_study(study, comparison, tmp_path):
    shutil.copytree(study / "relu", tmp_path / "relu")
    run_all(plan(comparison.only("light", 0), tmp_path), Console(file=io.StringIO()))
    assert result(tmp_path, "light")["test_accuracy"] == result(study, "light")["test_accuracy"]


def test_scaling_is_for_direct_methods_alone():
    with pytest.raises(ValueError, match="alpha of a method of kind tandem must be 0, not 0.1"):
        Method(kind="tandem", source="relu")
