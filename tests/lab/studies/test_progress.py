import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tracegrad.lab.runs.run import plan
from tracegrad.lab.studies.progress import StudyProgress
from tracegrad.lab.studies.study import run_all
from tracegrad.lab.studies.train_run import train_run


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=110, force_terminal=True, color_system=None)


def shown(console):
    """The last picture that the terminal showed."""
    picture = re.split(r"\x1b\[1A(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)*|\r\x1b\[2K", console.file.getvalue())[-1]
    return re.sub(r"\x1b\[[\d?]*[A-Za-z]|\r", "", picture)


def test_a_terminal_ends_with_a_table_of_all_runs(terminal, tiny, tmp_path):
    run_all(plan(replace(tiny, seeds=[0]), tmp_path), terminal)
    lines = [line.split() for line in shown(terminal).splitlines() if "seed" in line]
    assert [line[:3] for line in lines] == [["baseline,", "seed", "0"], ["gradient-scale,", "seed", "0"]]
    for line in lines:
        assert "2/2" in line
        assert re.search(r"\d+\.\d\d% test \d+\.\d\d% \d+\.\d\d K$", " ".join(line))
    assert "2/2 runs" in shown(terminal)
    assert "…" not in shown(terminal)


def test_while_it_trains_the_table_shows_epoch_time_left_and_best(terminal, tiny, digits, tmp_path):
    runs = plan(replace(tiny, seeds=[0]), tmp_path)
    seen = []
    with StudyProgress(terminal, runs) as progress:
        watch = progress.watch(runs[0])

        def look(moment):
            watch(moment)
            page = Console(file=io.StringIO(), width=110)
            page.print(progress.bars.get_renderable())
            seen.append(page.file.getvalue())

        train_run(runs[0], digits, look)
    assert re.search(r"baseline, seed 0 +-:--:-- +1/2 ", seen[0])
    assert re.search(r"gradient-scale, seed 0 \S+ +-:--:-- +waiting", seen[0])
    assert "0/2 runs" in seen[0]
    assert re.search(r"baseline, seed 0 .*0:00:0\d +2/2 +\d+.\d\d%", seen[-2])
    assert re.search(r"all runs .*0:0\d:\d\d +0/2 runs", seen[-2])


def test_lines_without_a_terminal_say_what_was_done(tiny, tmp_path):
    console = Console(file=io.StringIO(), width=40)
    runs = plan(replace(tiny, seeds=[0]), tmp_path)
    run_all(runs[:1], console)
    run_all(runs, console)
    first, kept, second = console.file.getvalue().splitlines()
    assert re.fullmatch(r"baseline, seed 0: test \d+.\d\d%, \d.\d\d K spikes per image \(\d s\)", first)
    assert kept == re.sub(r"\(.*", "(complete already)", first)
    assert second.startswith("gradient-scale, seed 0: test ")


def test_names_are_shown_as_they_are(tiny, tmp_path):
    console = Console(file=io.StringIO(), width=40)
    name = "a[red]b[v2]"
    recipe = replace(tiny, methods={name: tiny.methods["baseline"]}, seeds=[0])
    run_all(plan(recipe, tmp_path), console)
    assert console.file.getvalue().startswith(f"{name}, seed 0: test ")
