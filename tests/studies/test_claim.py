"""The study of the claim: its recipes train, and its stage 0 drops what its rule says."""

import json
import math
from pathlib import Path

import pytest

from tracegrad.cli import main
from tracegrad.lab.recipe.reading import load_recipe

CLAIM = Path(__file__).parents[2] / "studies" / "claim"
RECIPES = sorted(path.name for path in CLAIM.glob("*.yaml"))
TINY = {
    "--training.epochs": "1",
    "--training.batch_size": "8",
    "--data.train_size": "16",
    "--model.options": "{blocks: [1], width: 4, norm: tdbn}",
    "--seeds": "[0]",
}
DIGITS = {"--data.name": "digits", "--data.crop_padding": "1"}


@pytest.fixture(scope="module")
def stage_0():
    """The script, which registers surrogates: once."""
    import sys

    sys.path.insert(0, str(CLAIM))
    try:
        import stage_0
    finally:
        sys.path.remove(str(CLAIM))
    return stage_0


def tiny(name: str) -> list[str]:
    options = TINY | ({} if "moving" in name else DIGITS)
    return [str(CLAIM / name), *(word for option in options.items() for word in option)]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name, tmp_path):
    assert main(["study", *tiny(name), "--output", str(tmp_path / "study")]) == 0
    methods = load_recipe(str(CLAIM / name)).methods
    for method in methods:
        result = json.loads((tmp_path / "study" / method / "seed-0" / "result.json").read_text())
        assert result["method"] == method
        assert math.isfinite(result["test_nll"])


@pytest.mark.parametrize("name", RECIPES)
def test_final_weights_are_measured(name):
    recipe = load_recipe(str(CLAIM / name))
    assert {recipe.setting(method).training.keep for method in recipe.methods} == {"final"}
    assert recipe.training.threads == 1


def test_no_seed_serves_two_stages():
    stages = {name.split("-")[0] if "stage" not in name else name[:7]: set() for name in RECIPES}
    for name in RECIPES:
        stages[name.split("-")[0] if "stage" not in name else name[:7]] |= set(load_recipe(str(CLAIM / name)).seeds)
    seeds = [seed for stage in stages.values() for seed in stage]
    assert len(seeds) == len(set(seeds))


def test_stage_a_has_the_same_arms_on_both_data_sets():
    first, second = (load_recipe(str(CLAIM / f"stage-a-{data}.yaml")) for data in ("fashion-mnist", "moving"))
    assert first.methods == second.methods
    assert first.seeds == second.seeds
    assert len(first.methods) <= 9  # eight and the baseline
    assert first.methods["placebo"].alpha == 1e-6
