"""The site's build refuses a page that would load something from the network."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.exceptions import PluginError

SOURCE = Path(__file__).parents[2] / "docs" / "offline.py"
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="some.md"))


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("offline", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://elsewhere.org/a.js"></script>',
        '<script async src="//elsewhere.org/a.js"></script>',
        '<link rel="stylesheet" href="https://elsewhere.org/a.css">',
        '<link href="https://elsewhere.org" crossorigin rel="preconnect">',
        '<img alt="x" src="http://elsewhere.org/a.png">',
    ],
)
def test_what_loads_from_elsewhere_is_refused(hook, loads):
    with pytest.raises(PluginError, match=r"some.md loads .*elsewhere.org"):
        hook.on_post_page(f"<html>{loads}</html>", page=PAGE)


@pytest.mark.parametrize(
    "harmless",
    [
        '<a href="https://elsewhere.org">a link</a>',
        '<script src="assets/a.js"></script>',
        '<link rel="canonical" href="https://here.org/page">',
        '<math xmlns="http://www.w3.org/1998/Math/MathML"></math>',
    ],
)
def test_links_and_local_files_are_fine(hook, harmless):
    assert hook.on_post_page(harmless, page=PAGE) == harmless
