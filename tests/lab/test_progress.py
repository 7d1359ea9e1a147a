import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tracegrad.lab.progress import RunProgress
from tracegrad.lab.runs import plan
from tracegrad.lab.study import run_all
from tracegrad.lab.training import train_run


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)


def frames(console):
    """What the terminal showed, one text per picture."""
    text = console.file.getvalue()
    pictures = re.split(r"\x1b\[1A(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)*|\r\x1b\[2K", text)
    return [re.sub(r"\x1b\[[\d?]*[A-Za-z]|\r", "", picture) for picture in pictures]


def test_a_terminal_ends_with_a_table_of_all_runs(terminal, tiny, tmp_path):
    run_all(plan(replace(tiny, seeds=[0]), tmp_path), terminal)
    lines = [line.split() for line in frames(terminal)[-1].splitlines() if "seed" in line]
    assert [line[:3] for line in lines] == [["baseline,", "seed", "0"], ["gradient-scale,", "seed", "0"]]
    for line in lines:
        assert line[3:5] == ["2/2", "done"]
        assert [cell[-1] for cell in line[5:7]] == ["%", "%"]
        assert line[8] == "K"
    assert "…" not in frames(terminal)[-1]
    assert "runs done" not in frames(terminal)[-1]


def test_while_it_trains_the_table_shows_epoch_time_left_and_best(terminal, tiny, digits, tmp_path):
    runs = plan(replace(tiny, seeds=[0]), tmp_path)
    with RunProgress(terminal, runs) as progress:
        watch = progress.callback(runs[0])
        end, seen = watch.on_train_batch_end, []

        def look(trainer, *arguments):
            end(trainer, *arguments)
            terminal.file = io.StringIO()
            terminal.print(progress.table())
            seen.append(terminal.file.getvalue())

        watch.on_train_batch_end = look
        train_run(runs[0], digits, [watch])
    assert re.search(r"baseline, seed 0 +1/2 +0:00:0\d  ", seen[0])
    assert re.search(r"gradient-scale, seed 0 +0/2 +waiting", seen[0])
    assert re.search(r"0 of 2 runs done, 0:00:\d\d left", seen[0])
    assert re.search(r"baseline, seed 0 +2/2 +0:00:00 +\d+.\d\d%", seen[-1])


def test_lines_without_a_terminal_say_what_was_done(tiny, tmp_path):
    console = Console(file=io.StringIO(), width=40)
    runs = plan(replace(tiny, seeds=[0]), tmp_path)
    run_all(runs[:1], console)
    run_all(runs, console)
    first, kept, second = console.file.getvalue().splitlines()
    assert re.fullmatch(r"baseline, seed 0: test \d+.\d\d%, \d.\d\d K spikes per image \(\d s\)", first)
    assert kept == re.sub(r"\(.*", "(complete already)", first)
    assert second.startswith("gradient-scale, seed 0: test ")
