import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from tracegrad import commands
from tracegrad.cli import main

TINY = [
    "--training.epochs=1",
    "--training.threads=1",
    "--data.train_size=100",
    "--model.options.width=2",
    "--model.options.blocks=[1]",
]


def _start(*arguments, **options):
    command = [sys.executable, "-m", "tracegrad", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for command in commands.COMMANDS:
        assert f"\n  {command} " in shown
    assert "tracegrad study digits" in shown


@pytest.mark.parametrize("command", ["train", "study"])
def test_help_of_a_command_explains_every_field(command, capsys):
    assert main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"usage: tracegrad {command} RECIPE" in shown
    for field, meaning in {
        "--output": "folder of the study",
        **({"--no-resume": "--no-resume begins it again"} if command == "train" else {}),
        "--training.learning_rate": "learning rate at the start",
        "--data.crop_padding": "crop it back at random",
        "--model.neuron.leak": "left after one time step",
        "--methods.NAME.alpha": "0 is the baseline",
    }.items():
        assert meaning in shown.partition(f" {field} ")[2][:400]
    networks = shown.partition("which network. One of ")[2].partition(".")[0].split(", ")
    assert set(networks) >= {"recurrent", "resnet", "resnet19", "resnet20", "vgg11"}
    assert networks == sorted(networks)
    assert re.search("--methods.NAME.relation .*One of anticausal, causal, coincidence, positive, pre_pre, stdp", shown)
    assert "CONFIG" not in shown


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"tracegrad \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_recipes_are_listed_and_shown(capsys, tmp_path):
    assert main(["recipes"]) == 0
    assert re.search("^digits +.*handwritten digits", capsys.readouterr().out, re.MULTILINE)
    assert main(["recipes", "--show", "digits"]) == 0
    copy = tmp_path / "mine.yaml"
    copy.write_text(capsys.readouterr().out)
    assert main(["train", str(copy), "--output", str(tmp_path / "mine"), *TINY]) == 0


def test_train_writes_a_run_of_the_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *TINY]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "gradient-scale, seed 0: test " in shown.out
    assert "runs/digits/gradient-scale/seed-0" in shown.out
    assert (tmp_path / "runs/digits/gradient-scale/seed-0/result.json").is_file()

    assert main(["train", "--method", "baseline", "digits", "--seed", "5", "--output", "other", *TINY]) == 0
    assert (tmp_path / "other/baseline/seed-5/result.json").is_file()


def test_study_shows_and_writes_the_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "digits", "--seeds", "[0,1]", *TINY]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "| Methods | Reset | Accuracy (%) mean |" in shown.out
    assert "| gradient-scale - baseline |" in shown.out
    names = ("table.md", "table.csv", "differences.csv", "figure.png", "figure.svg", "study.yaml", "report.html")
    for name in names:
        assert (tmp_path / "runs/digits" / name).is_file()

    assert main(["study", "digits", "--seeds", "[0,1]", *TINY]) == 0
    assert capsys.readouterr().out.count("complete already") == 4

    assert main(["study", "digits", "--plan", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "Seeds to see 0.5 points of test accuracy with a probability of 80%" in shown
    assert re.search(r"\| gradient-scale \| 2 \| \d+\.\d\d \| \d+\.\d\d \| (\d+|over 10,000) \|", shown)
    assert main(["study", "digits", "--plan", "0"]) == 2
    assert "the difference to see must be above 0 and finite, not 0" in capsys.readouterr().err


def test_a_run_is_evaluated_exported_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *TINY]) == 0
    capsys.readouterr()
    run = "runs/digits/gradient-scale/seed-0"
    assert main(["evaluate", run, "--part=validation", "--time_steps=[1]"]) == 0
    shown = capsys.readouterr().out
    assert "180 validation images, trained with T = 4" in shown
    assert re.search(r"\| 1 \| \d+.\d\d \| \d.\d\d \|\n\| 4 \(trained\) ", shown)
    assert f"tables and pictures are in {run}/evaluation" in shown
    assert main(["export", run]) == 0
    assert capsys.readouterr().out == f"the weights are in {run}/weights.safetensors\n"
    assert main(["export", run, "--to", "nir"]) == 2
    assert "has a soft reset, and NIR's neurons reset hard; train with reset='hard'" in capsys.readouterr().err
    assert main(["report", run, "runs/digits", "--output", "page.html"]) == 0
    assert capsys.readouterr().out == "the report is page.html\n"
    assert (tmp_path / "page.html").is_file()
    assert main(["report", "runs/digits"]) == 0
    assert (tmp_path / "runs/digits/report.html").is_file()


@pytest.mark.parametrize("name", ["out[v2]", "a[/red]b", ":smile:"])
def test_paths_are_shown_as_they_are(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ["--training.epochs=1", "--data.train_size=50", "--model.options={blocks: [1], width: 2}"]
    assert main(["train", "digits", "--method=baseline", "--output", name, "--training.threads=1", *tiny]) == 0
    assert f"everything about this run is in {name}/baseline/seed-0\n" in capsys.readouterr().out
    assert main(["report", name, "--output", f"{name}.html"]) == 0
    assert capsys.readouterr().out == f"the report is {name}.html\n"


def test_a_recipe_without_a_baseline_trains_its_first_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("extends: digits\nmethods: {free: {kind: stdp, options: {images: 0}}}\n")
    assert main(["train", "mine.yaml"]) == 2
    assert "options.images must be greater than or equal to 1, not 0" in capsys.readouterr().err


def test_benchmark_measures_and_shows_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ["--rounds=1", "--batch=1", "--width=2", "--image_size=8"]
    assert main(["benchmark", "--sections=[inference]", *tiny]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "**Inference, batch 1**" in shown.out
    assert "| convolutions alone, bf16 |" in shown.out
    assert shown.out.endswith("tables and figures are in runs/benchmark\n")
    for name in ("results.json", "table.md", "table.csv", "speed.svg", "speed.png"):
        assert (tmp_path / "runs/benchmark" / name).is_file()

    assert main(["benchmark", "--sections=[inference]", *tiny]) == 0
    assert "inference: measured already" in capsys.readouterr().out
    assert main(["benchmark", "--sections=[inference]", *tiny, "--batch=2"]) == 2
    assert "results.json was measured with another workload; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "trian digits",
            "unknown command 'trian'; there are train, study, evaluate, diagnose, convert, report, export, benchmark, "
            "recipes",
        ),
        ("train", "the following arguments are required: recipe"),
        ("train digit", "unknown recipe 'digit'; give the path of a YAML file or one of .*digits"),
        ("study digits --training.epoch 3", "unknown field training.epoch; there are epochs"),
        ("train digits --training.epochs many", "training.epochs must be a valid integer, not 'many'"),
        (
            "train digits --methods.gradient-scale.alpha 2",
            "methods.gradient-scale.alpha must be less than or equal to 1, not 2",
        ),
        ("train digits --methods.gradient-scale.relation x", "unknown relation 'x'; the known ones are"),
        ("train digits --methods.gradient-scale.normalize x", "unknown normalization 'x'; the known ones are"),
        ("train digits --model.neuron.surrogate x", "unknown surrogate 'x'; the known ones are"),
        ("train digits --method x", "unknown method 'x'; recipe 'digits' has baseline, gradient-scale"),
        ("train digits --seed one", "seed must be a valid integer, not 'one'"),
        ("train digits --seed -1", "recipe.seeds.0 must be greater than or equal to 0, not -1"),
        ("train digits --model.options.depth 3", "unknown field model.options.depth; resnet has"),
        ("train digits --data.train_size 3", "train_size is 3; it must be from 10"),
        ("train digits --resume false", "unknown options .*false"),
        ("train digits --epochs 3", "unknown options .*--epochs 3"),
        ("train digits extra", "unknown options .*extra"),
        ("train digits --training.epochs", "--training.epochs: expected one argument"),
        ("train digits --training.epochs=", "--training.epochs: expected one argument"),
        (
            "study digits --methods.gradient_scale.alpha 0.5",
            "the method in --methods.gradient_scale.alpha must be one of .*, not 'gradient_scale'",
        ),
        ("train digits --methods.other.alpha 0.5", "must be one of baseline, gradient-scale, not 'other'"),
        ("evaluate", "required: run"),
        ("evaluate x", "x is no run: it has no config.yaml; give a folder such as runs/NAME/METHOD/seed-0"),
        ("evaluate x --part train", "part must be 'test' or 'validation', not 'train'"),
        ("export x", "x is no run: it has no config.yaml"),
        ("convert x", "required: .*--by"),
        ("convert x --by qcfs --time-steps 0", "time_steps must be from 1 to 10,000, not 0"),
        ("convert x --by qcfs --time_steps 4", "x is no run: it has no config.yaml"),
        ("convert x --by qcfs --time-steps 1000000000", "time_steps must be from 1 to 10,000, not 1000000000"),
        (
            "train digits --training.batch_size 1000000000000",
            "batch_size must be less than or equal to 1000000, not 1000000000000",
        ),
        (
            "train digits --model.time_steps 1000000000",
            "time_steps must be less than or equal to 10000, not 1000000000",
        ),
        (
            "train digits --model.options.blocks [1000000000]",
            "blocks must be at most 1,000 together, not 1,000,000,000",
        ),
        ("train digits --model.options.width 30000", "a network of .* parameters; the most are 250,000,000"),
        ("train digits --model.options.width 1000000000", "model.options make no network: "),
        ("convert x --by tandem --time-steps 4", "by must be 'qcfs' or 'calibration', not 'tandem'"),
        ("export x --to onnx", "to must be 'safetensors' or 'nir', not 'onnx'"),
        ("report", "required: runs"),
        ("report x", "x is no run and no study"),
        ("benchmark --rounds 0", "rounds must be at least 1, not 0"),
        ("benchmark --batch 0", "batch must be at least 1, not 0"),
        ("benchmark --sections [speed]", "sections.0 must be 'training', 'large-batch', .*'speed'"),
        ("benchmark --device tpu", "device must be 'cpu' or 'cuda', not 'tpu'"),
        ("recipes --show x", "unknown recipe 'x'"),
        ("recipes digits", "unknown options .*digits"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(f"tracegrad: error: .*{message}.*\n", shown.err)


def test_a_loss_that_is_not_finite_is_one_line_and_exit_code_2(tmp_path, capsys):
    diverging = ["--training.learning_rate=1e30", "--training.batch_size=10"]
    assert main(["train", "digits", "--output", str(tmp_path), *TINY, *diverging]) == 2
    message = r"tracegrad: error: gradient-scale, seed 0: the loss is \w+ in epoch 1, step \d+; lower .*\n"
    assert re.fullmatch(message, capsys.readouterr().err)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "digits", "--output", str(tmp_path / "file"), *TINY]) == 2
    assert re.fullmatch("tracegrad: error: .*file.*\n", capsys.readouterr().err)


def test_the_traceback_is_there_when_asked_for():
    with pytest.raises(ValueError, match="unknown recipe 'x'"):
        main(["train", "x", "--traceback"])


def test_a_failure_of_ours_is_exit_code_1_and_points_at_the_traceback(monkeypatch, capsys):
    def broken():
        raise RuntimeError("two\nlines")

    monkeypatch.setitem(commands.COMMANDS, "recipes", broken)
    assert main(["recipes"]) == 1
    assert capsys.readouterr().err == "tracegrad: error: two lines (--traceback shows where)\n"


def test_a_process_shows_nothing_of_third_parties(tmp_path):
    process = _start("train", "digits", "--seed", "3", *TINY, cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0])
def test_stopped_while_it_is_imported_it_says_nothing(seconds, tmp_path):
    code = "print('begun', flush=True); from tracegrad_command import main; main()"
    command = [sys.executable, "-c", code, "train", "digits", *TINY, "--training.epochs=10000", "--no-resume"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1


@pytest.mark.parametrize(
    ("code", "reason"), [("raise OSError('no\\nfile')", "OSError: no file"), ("", "ImportError: .*torch.*")]
)
def test_a_broken_pytorch_is_one_line(code, reason, tmp_path):
    (tmp_path / "torch.py").write_text(code)
    command = [sys.executable, "-c", "from tracegrad_command import main; main()", "recipes"]
    start = partial(subprocess.run, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    done = start(command)
    assert done.returncode == 1
    assert re.fullmatch(rf"tracegrad: error: an import failed \({reason}\); is PyTorch whole\?.*\n", done.stderr)
    assert "Traceback" in start([*command, "--traceback"]).stderr


def test_help_waits_for_no_library_that_it_does_not_need():
    slow = "{'torchvision', 'sklearn', 'lightning_fabric', 'matplotlib', 'tensorboard'}"
    check = f"import sys, tracegrad.cli; tracegrad.cli.main(['train', '--help']); print({slow} & sys.modules.keys())"
    process = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "set()"


def test_a_reader_that_has_seen_enough_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "tracegrad", "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + 13
