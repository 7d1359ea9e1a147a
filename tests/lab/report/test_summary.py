from dataclasses import replace

import pytest

from tracegrad.lab.report.collect import collect
from tracegrad.lab.report.summary import summarize_in_words


@pytest.fixture
def with_results(trained):
    """Puts chosen accuracies and spikes (baseline, gradient-scale; one per seed) into the trained study."""

    def change(accuracies, spikes, seeds=(0, 1)):
        (study,) = collect([trained])
        runs = {
            (method, seed): replace(run, result={"test_accuracy": each[seed], "spikes_per_image": count[seed]})
            for method, each, count in zip(study.recipe.methods, accuracies, spikes, strict=True)
            for seed in seeds
            for run in [study.runs[method, seed]]
        }
        return replace(study, runs=runs)

    return change


def test_an_interval_around_zero_shows_no_difference(with_results):
    (sentence,) = summarize_in_words(with_results([(0.9, 0.92), (0.91, 0.92)], [(2000, 2000), (1000, 3000)]))
    assert sentence.startswith(
        "Over 2 seeds, gradient-scale reached 91.50\u00a0% test accuracy and baseline 91.00\u00a0%"
    )
    assert sentence.count("no difference shown") == 2


def test_differences_are_told_with_their_direction(with_results):
    (sentence,) = summarize_in_words(with_results([(0.8, 0.9), (0.85, 0.951)], [(2000, 3000), (1000, 2001)]))
    assert "+5.05\u00a0points (95\u00a0% interval +4.41 to +5.69), higher" in sentence
    assert "−1.00\u00a0K (95\u00a0% interval −1.01 to −0.99), fewer" in sentence
    assert "no difference" not in sentence


def test_a_single_pair_shows_nothing(with_results):
    (sentence,) = summarize_in_words(with_results([(0.1, 0), (0.9, 0)], [(1, 1), (2, 2)], seeds=[0]))
    assert sentence.startswith("Over the single seed 0")
    assert sentence.count("no difference shown, as one pair of runs tells nothing about chance") == 2


def test_a_method_alone(trained):
    (study,) = collect([trained / "gradient-scale/seed-0", trained / "gradient-scale/seed-1"])
    (sentence,) = summarize_in_words(study)
    assert sentence.endswith("nothing to compare it with.")
