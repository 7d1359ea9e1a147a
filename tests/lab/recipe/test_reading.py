from dataclasses import asdict, replace

import pytest

from tracegrad.lab.data import DataOptions
from tracegrad.lab.recipe.parts import Method, Model, Neuron, Training
from tracegrad.lab.recipe.reading import find_recipe, load_recipe, shipped_recipes
from tracegrad.lab.runs.run import to_yaml


@pytest.fixture
def recipe_file(tmp_path):
    def make(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return make


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_whole(name):
    recipe = load_recipe(name)
    assert recipe.description
    assert recipe.baseline in ("baseline", "stbp-tdbn", "tdbn")
    assert len(recipe.methods) >= 2
    assert len(recipe.seeds) >= 3


def test_a_file_of_ones_own_with_every_kind_of_field(recipe_file):
    recipe = load_recipe(
        recipe_file(
            """
            data: {name: digits, train_size: 100}
            model: {name: resnet, options: {blocks: [1, 2]}, neuron: {leak: 1, reset: hard}}
            objective: membrane_cross_entropy
            training: {learning_rate: 1e-2, precision: bf16}
            methods: {plain: , mine: {relation: pre_pre, scope: same-shape}}
            seeds: [3, 1]
            """
        )
    )
    assert recipe.name == "mine"
    assert recipe.data == DataOptions(train_size=100)
    assert recipe.model == Model("resnet", options={"blocks": [1, 2]}, neuron=Neuron(leak=1.0, reset="hard"))
    assert recipe.objective == "membrane_cross_entropy"
    assert recipe.training == Training(learning_rate=0.01, precision="bf16")
    assert recipe.methods == {"plain": Method(alpha=0.0), "mine": Method(relation="pre_pre", scope="same-shape")}
    assert recipe.baseline == "plain"
    assert recipe.seeds == [3, 1]


def test_options_override_single_fields(recipe_file):
    plain = load_recipe("digits")
    changed = load_recipe(
        "digits",
        {
            "training.epochs": "3",
            "methods.gradient-scale.alpha": "0.5",
            "seeds": "[0,1]",
            "model.options.width": "8",
            "data.flip": "true",
            "data.train_size": "100",
        },
    )
    assert changed.training == replace(plain.training, epochs=3)
    assert changed.methods["gradient-scale"] == replace(plain.methods["gradient-scale"], alpha=0.5)
    assert changed.methods["baseline"] == plain.methods["baseline"]
    assert changed.seeds == [0, 1]
    assert changed.model.options == plain.model.options | {"width": 8}
    assert changed.data == replace(plain.data, flip=True, train_size=100)


def test_written_recipes_read_as_the_same(recipe_file):
    recipe = load_recipe("digits", {"data.train_size": "100", "methods.gradient-scale.time": "mean"})
    assert asdict(load_recipe(recipe_file(to_yaml(recipe)))) == asdict(recipe)


def test_only_keeps_one_run():
    single = load_recipe("digits").only("gradient-scale", 7)
    assert list(single.methods) == ["gradient-scale"]
    assert single.seeds == [7]
    assert single.baseline is None
    with pytest.raises(ValueError, match="unknown method 'nothing'; recipe 'digits' has baseline, gradient-scale"):
        single = load_recipe("digits").only("nothing", 7)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--training.epoch 3", "unknown field training.epoch; there are epochs, batch_size"),
        ("--trainin.epochs 3", "unknown field trainin; there are name, description, data"),
        ("--training.epochs abc", "training.epochs must be a valid integer, not 'abc'"),
        ("--training.epochs 2.5", "training.epochs must be a valid integer, not 2.5"),
        ("--training.epochs 0", "training.epochs must be greater than or equal to 1, not 0"),
        ("--training.batch_size -1", "training.batch_size must be greater than or equal to 1, not -1"),
        ("--training.learning_rate 0", "training.learning_rate must be greater than 0, not 0"),
        ("--training.learning_rate .nan", "training.learning_rate must be a finite number, not nan"),
        ("--training.precision fp16", "training.precision must be 'fp32', 'bf16' or 'fp64', not 'fp16'"),
        ("--training.schedule linear", "training.schedule must be 'step' or 'cosine', not 'linear'"),
        ("--data.name mnist", "unknown data set 'mnist'; the known ones are .*'digits'"),
        ("--data.train_size many", "data.train_size must be a valid integer, not 'many'"),
        ("--model.name resnet21", "unknown model 'resnet21'; the known ones are .*'resnet20'"),
        ("--model.neuron.reset mid", "model.neuron.reset must be 'soft' or 'hard', not 'mid'"),
        ("--model.neuron.surrogate step", "unknown surrogate 'step'; the known ones are .*'boxcar'"),
        ("--model.neuron.leak 1.5", "model.neuron.leak must be less than or equal to 1, not 1.5"),
        ("--objective mse", "unknown objective 'mse'; the known ones are .*'mean_cross_entropy'"),
        ("--methods.gradient-scale.alph 1", "unknown field methods.gradient-scale.alph; there are alpha, relation"),
        ("--methods.gradient-scale.alpha 1.5", "methods.gradient-scale.alpha must be less than or equal to 1, not 1.5"),
        (
            "--methods.gradient-scale.alpha -0.1",
            "methods.gradient-scale.alpha must be greater than or equal to 0, not -0.1",
        ),
        ("--methods.gradient-scale.alpha .nan", "methods.gradient-scale.alpha must be .*, not nan"),
        ("--methods.gradient-scale.alpha much", "alpha must be a valid number, not 'much'"),
        ("--methods.gradient-scale.relation stpd", "unknown relation 'stpd'; the known ones are .*'positive'"),
        ("--methods.gradient-scale.normalize min", "unknown normalization 'min'; the known ones are .*'max'"),
        ("--methods.gradient-scale.scaling cubic", "unknown scaling 'cubic'; the known ones are .*'linear'"),
        ("--methods.gradient-scale.time last", "time must be 'per_step', 'mean' or 'final', not 'last'"),
        (
            "--methods.a/b.alpha 0",
            "the method in --methods.a/b.alpha must be one of baseline, gradient-scale, not 'a/b'",
        ),
        ("--name ..", "usable as a folder's name, not '..'"),
        ("--seeds 3", "seeds must be a valid array, not 3"),
        ("--seeds [x]", "seeds.0 must be a valid integer, not 'x'"),
        ("--seeds [0,0]", "seeds must be at least one, without repetitions, not .0, 0."),
        ("--seeds [-1]", "seeds.0 must be greater than or equal to 0, not -1"),
        ("--seeds []", "seeds must be at least one, without repetitions, not .."),
    ],
)
def test_bad_options_say_in_one_line_what_would_be_right(option, message):
    with pytest.raises(ValueError, match=message) as error:
        load_recipe("digits", dict([option.removeprefix("--").split(" ", 1)]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainin: {epochs: 3}", "unknown field trainin; there are name, description, data"),
        ("training: {epoch: 3}", "unknown field training.epoch; there are epochs, batch_size"),
        ("training: {epochs: x}", "training.epochs must be a valid integer, not 'x'"),
        ("training: 3", "training must be a section with the fields epochs, .*, not 3"),
        ("model: {neuron: {lek: 1}}", "unknown field model.neuron.lek; there are name, leak"),
        ("methods: {a: {alph: 1}}", "unknown field methods.a.alph; there are alpha"),
        ("methods: {a: {alpha: 2}}", "methods.a.alpha must be less than or equal to 1, not 2"),
        ("methods: {a: 1}", "methods.a must be a section with the fields alpha, .*, not 1"),
        ("methods: [a]", "methods must be an object, not .*a"),
        ("methods: {}", "methods must be at least one method"),
        ("- a list", "mine.yaml must be a recipe, which is fields and their values, not .'a list'"),
        ("", "mine.yaml must be a recipe, which is fields and their values, not None"),
        ("a: ]", "mine.yaml is not YAML: .*line 1"),
        ("name: 2020", "name must be a valid string, not 2020"),
        ("methods: {1: }", "a name must be text, not 1; put it in quotes .line 1, column 11"),
        ("methods: {yes: }", "a name must be text, not True; put it in quotes"),
        ("methods: {~: }", "a name must be text, not None; put it in quotes"),
        ("methods: {table.csv: }", "usable as a folder's name, not 'table.csv'"),
        (f"name: {'n' * 300}", "usable as a folder's name, not 'nnn"),
        ('name: "a\\x1bb"', r"usable as a folder's name, not 'a\\x1bb'"),
        ("training: {epochs: 1}\ntraining: {}", "mine.yaml is not YAML: 'training' is there twice .line 2"),
        ("training: {epochs: 1, epochs: 2}", "'epochs' is there twice"),
        ("a: &a [x]\nb: [*a, *a]", "a recipe has no anchors .* and no aliases .*line 1"),
        ("a: &a [*a]", "a recipe has no anchors"),
        ("[" * 1000, "nested more than 20 levels deep"),
        ("model: {time_steps: 1e30}", "model.time_steps must be a valid integer, not 1e"),
        ("model: {time_steps: 1000000000}", "model.time_steps must be less than or equal to 10000, not 1000000000"),
        ("model: {neuron: {threshold: .inf}}", "model.neuron.threshold must be a finite number, not inf"),
        ("model: {neuron: {rest: .nan}}", "model.neuron.rest must be a finite number, not nan"),
        ("training: {threads: 10000}", "training.threads must be less than or equal to 1024, not 10000"),
        ("training: {learning_rate: .inf}", "training.learning_rate must be a finite number, not inf"),
        (
            "training: {checkpoint_every: soon}",
            "such as 90s, 5min, 1h or 500steps, not 'soon'",
        ),
        ("extends: /etc/passwd", "unknown recipe '/etc/passwd'; give the path of a YAML file"),
        (f"description: '{'x' * 1_000_001}'", "mine.yaml is no recipe: it has a length of 1,000,016"),
    ],
)
def test_bad_files_say_in_one_line_what_would_be_right(recipe_file, text, message):
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(recipe_file(text))
    assert "\n" not in str(error.value)


def test_empty_sections_mean_the_defaults(recipe_file):
    recipe = load_recipe(recipe_file("training:\nmodel: {neuron: }"))
    assert recipe.training == Training()
    assert recipe.model == Model()


def test_a_wrong_value_is_shown_in_part(recipe_file):
    with pytest.raises(ValueError, match="training must be a section with the fields") as error:
        load_recipe(recipe_file(f"training: {'x' * 10_000}"))
    assert len(str(error.value)) < 400


def test_what_is_no_text_is_no_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="mine.yaml is not YAML: "):
        load_recipe(str(path))


def test_an_extended_recipe_is_looked_for_beside_the_one_that_extends_it(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "base.yaml").write_text("training: {epochs: 7}")
    (tmp_path / "there" / "mine.yaml").write_text("extends: base.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("there/mine.yaml").training.epochs == 7


def test_controls_of_methods(recipe_file):
    recipe = load_recipe(
        recipe_file(
            """
            methods:
              plain:
              placebo: {alpha: 1e-6}
              counts: {control: counts}
              scaled: {control: {mean_scale: {stem: 0.9}}, inverted: true}
              inside: {apply: event, alpha_schedule: warmup, alpha_epochs: 3, control_seed: 4}
            """
        )
    )
    plain, placebo, counts, scaled, inside = recipe.methods.values()
    assert (plain.alpha, placebo.alpha, counts.alpha) == (0.0, 1e-6, 0.1)
    assert scaled.attachment["control"] == {"mean_scale": {"stem": 0.9}}
    assert (counts.attachment["control"], scaled.attachment["inverted"]) == ("counts", True)
    assert (inside.attachment["apply"], inside.attachment["control_seed"]) == ("event", 4)
    assert (inside.alpha_schedule, inside.alpha_epochs) == ("warmup", 3)


def test_old_names_of_recipes_that_results_use_keep_working():
    assert load_recipe("rivals/digits") == load_recipe("comparison/digits")


def test_unknown_recipes_list_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown recipe 'digit'; give the path of a YAML file or one of .*digits"):
        find_recipe("digit")
