from dataclasses import replace

import pytest

from tracegrad.lab.report.comparing import compare
from tracegrad.lab.report.quantities import ACCURACY
from tracegrad.lab.report.words import summarize_in_words
from tracegrad.lab.studies.collect import collect


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
    sentence, limit = summarize_in_words(with_results([(0.9, 0.92), (0.91, 0.92)], [(2000, 2000), (1000, 3000)]))
    assert sentence.startswith(
        "Over 2 seeds, gradient-scale reached 91.50\u00a0% test accuracy and baseline 91.00\u00a0%"
    )
    assert sentence.count("no difference shown: with this spread, 2 seeds see one of ") == 2
    assert limit.startswith("2 seeds cannot go below p = 0.5 in an exact test (sign flips)")


def test_of_several_comparisons_one_claim_must_be_clearer(with_results):
    study = with_results([(0.8, 0.9), (0.85, 0.9515)], [(2000, 3000), (1000, 2001)])
    p = compare(study, ACCURACY)["gradient-scale"].p
    assert p < 0.05 < 6 * p
    assert "higher" in summarize_in_words(study)[0]
    others = dict.fromkeys(("b", "c", "d", "e", "f"), study.recipe.methods["gradient-scale"])
    runs = {(name, seed): study.runs["baseline", seed] for name in others for seed in (0, 1)}
    noisy = {key: replace(run, result={**run.result, "test_accuracy": 0.8 + 0.1 * key[1]}) for key, run in runs.items()}
    noisy["b", 0] = replace(noisy["b", 0], result={**noisy["b", 0].result, "test_accuracy": 0.7})
    recipe = replace(study.recipe, methods={**study.recipe.methods, **others})
    several = replace(study, recipe=recipe, runs={**study.runs, **noisy})
    assert compare(several, ACCURACY)["gradient-scale"].p > 0.05
    assert "no difference shown: of several comparisons one such is chance" in summarize_in_words(several)[0]


def test_differences_are_told_with_their_direction(with_results):
    sentence, _ = summarize_in_words(with_results([(0.8, 0.9), (0.85, 0.951)], [(2000, 3000), (1000, 2001)]))
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
