"""The recipes of the paper's tables: what they say, and that they run on archives in CIFAR's own format."""

from dataclasses import asdict

import pytest
import torchvision.datasets

from lab.data.archives import write_cifar
from tracegrad.cli import main
from tracegrad.lab.recipe.reading import load_recipe, shipped_recipes
from tracegrad.lab.report.paper import reported_for

PAPER = [name for name in shipped_recipes() if name.startswith("park2023/")]
SMALL = ["--model.options", "{width: 2, norm: tdbn}", "--training.epochs", "1", "--data.train_size", "100"]
QUICK = [*SMALL, "--training.threads", "1", "--seeds", "[0]", "--training.batch_size", "100"]


def flat(value, where=""):
    if not isinstance(value, dict):
        return {where: value}
    return {name: leaf for key, inner in value.items() for name, leaf in flat(inner, f"{where}.{key}").items()}


def fields(name: str) -> dict[str, object]:
    return flat(asdict(load_recipe(name)))


def test_there_is_one_recipe_for_each_pair_of_rows_of_tables_1_and_2() -> None:
    expected = {
        f"park2023/{data}-{network}-{reset}"
        for data in ("cifar10", "cifar100")
        for network in ("resnet20", "resnet32")
        for reset in ("soft", "hard")
    }
    assert set(PAPER) == expected
    for name in PAPER:
        recipe = load_recipe(name)
        assert set(reported_for(recipe)) == set(recipe.methods) == {"baseline", "gradient-scale"}
        assert len(recipe.seeds) == 4
        assert f"{recipe.data.name}-{recipe.model.name}-{recipe.model.neuron.reset}" == name.removeprefix("park2023/")
        assert recipe.name == name.replace("/", "-")


def test_they_differ_only_where_the_papers_tables_do() -> None:
    told_apart = {".name", ".description", ".data.name", ".model.name", ".model.neuron.reset"}
    first = fields(PAPER[0])
    for name in PAPER[1:]:
        other = fields(name)
        assert first.keys() == other.keys()
        differing = {field for field, value in first.items() if other[field] != value}
        assert differing <= told_apart, f"{name} differs from {PAPER[0]} in {differing - told_apart}"


def test_the_setting_is_the_papers() -> None:
    recipe = load_recipe(PAPER[0])
    training = recipe.training
    assert (training.epochs, training.schedule, training.decay_every, training.decay_factor) == (300, "step", 100, 0.1)
    assert (training.batch_size, training.learning_rate, training.momentum) == (100, 0.1, 0.9)
    assert training.weight_decay == 1e-4
    assert (recipe.model.time_steps, recipe.model.neuron.leak, recipe.model.neuron.threshold) == (4, 0.9, 0.5)
    assert recipe.methods["gradient-scale"].alpha == 0.1
    assert (recipe.data.crop_padding, recipe.data.flip, recipe.data.cutmix, recipe.data.cutmix_until) == (
        4,
        True,
        1,
        200,
    )


def test_the_variants_of_the_authors_code() -> None:
    recipe = load_recipe("park2023-code/cifar10-resnet20-soft")
    assert recipe.model.options["norm"] == "time_mean"
    assert (recipe.methods["code"].relation, recipe.methods["code"].scope) == ("pre_pre", "same-shape")


TRIED = ["park2023/cifar10-resnet20-soft", "park2023/cifar100-resnet20-hard", "park2023-code/cifar10-resnet20-soft"]
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in PAPER if name not in TRIED]


@pytest.mark.parametrize("name", TRIED + LONG)
def test_each_runs_end_to_end_for_a_short_epoch(name: str, tmp_path, monkeypatch, capsys) -> None:
    base = getattr(torchvision.datasets, load_recipe(name).data.name.upper())
    small = write_cifar(tmp_path / "data", base, train=1000, test=100)
    for attribute in ("tgz_md5", "train_list", "test_list", "meta"):  # the digests of this archive
        monkeypatch.setattr(base, attribute, getattr(small, attribute))
    options = [*QUICK, "--data.root", str(tmp_path / "data"), "--output", str(tmp_path / "study")]
    if "code" in name:
        options[1] = "{width: 2, norm: time_mean}"
    assert main(["study", name, *options]) == 0, capsys.readouterr().err
    table = (tmp_path / "study" / "table.csv").read_text()
    for method in load_recipe(name).methods:
        assert f"{method}," in table


def test_a_recipe_extends_another(tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: digits\ntraining: {epochs: 3}\nmethods: {plain: , strong: {alpha: 0.9}}\n")
    recipe, digits = load_recipe(str(mine)), load_recipe("digits")
    assert recipe.name == "mine"
    assert recipe.training.epochs == 3
    assert recipe.training.learning_rate == digits.training.learning_rate
    assert recipe.model == digits.model
    assert list(recipe.methods) == ["plain", "strong"]


def test_a_recipe_that_extends_itself_or_nothing(tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {mine}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml extends itself"):
        load_recipe(str(mine))
    mine.write_text("extends: nothing\n")
    with pytest.raises(ValueError, match="unknown recipe 'nothing'"):
        load_recipe(str(mine))
