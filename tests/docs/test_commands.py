"""Every `tracegrad` command that the documentation shows is one that the command line understands."""

import re
import shlex
from functools import wraps
from pathlib import Path

import pytest

from tracegrad import cli, commands
from tracegrad.lab.recipe.reading import find_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("tracegrad ")]


SHOWN = [(page.relative_to(ROOT), command) for page in PAGES for command in commands_of(page)]


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page}: {command}" for page, command in SHOWN])
def test_command_is_understood(page, command, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(find_recipe("digits").read_text(encoding="utf-8"), encoding="utf-8")
    words = shlex.split(command, comments=True)[1:]
    words = words[: words.index(">")] if ">" in words else words
    called = []
    for command, function in commands.COMMANDS.items():
        monkeypatch.setitem(commands.COMMANDS, command, _noted(function, command, called))
    assert cli.main(words) == 0, f"{page} shows {command!r}: {capsys.readouterr().err}"
    assert called == words[:1]


def _noted(function, command, called):
    return wraps(function)(lambda *_, **__: called.append(command))
