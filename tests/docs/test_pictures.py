"""The pictures of the documentation say what their script computes."""

import io
import re
from pathlib import Path

import matplotlib as mpl
import pytest

DOCS = Path(__file__).parents[2] / "docs"
TEXT = re.compile(r">([^<>]+)</(?:text|tspan)>")
NAMES = ["spikes", "relations", "normalizations", "scalings", "inside", "controls"]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_in_pictures_of_local_information_are_those_of_the_script(name, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import figures
    import information

    theme, file = figures.THEMES["light"], io.StringIO()
    with mpl.rc_context(figures.style(theme)):
        information.FIGURES[f"information-{name}"](theme).savefig(file, format="svg")
    drawn = TEXT.findall(file.getvalue())
    for shade in figures.THEMES:
        shown = TEXT.findall((DOCS / f"images/information-{name}-{shade}.svg").read_text(encoding="utf-8"))
        assert shown == drawn, f"run python docs/information.py: {name}, {shade}, is not what it draws"
    assert len(drawn) > 10
    assert set(information.FIGURES) == {f"information-{each}" for each in NAMES}
