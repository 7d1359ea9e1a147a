"""`docs/renamed.md`: the names that it gives exist, and those that it calls old do not."""

import importlib
import re

import pytest

from table_rows import ROOT

TABLE = (ROOT / "docs/renamed.md").read_text(encoding="utf-8").partition("## When you import modules")[2]
ROWS = re.findall(r"^\| (`tracegrad.*?) \| (`tracegrad.*?) \|$", TABLE, re.MULTILINE)
BEFORE, NOW = (re.findall(r"`(tracegrad[\w.]+)`", " ".join(names)) for names in zip(*ROWS, strict=True))


def exists(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        module, _, attribute = name.rpartition(".")
        try:
            return hasattr(importlib.import_module(module), attribute)
        except ImportError:
            return False
    return True


@pytest.mark.parametrize("name", NOW)
def test_new_names_exist(name: str) -> None:
    assert exists(name)


@pytest.mark.parametrize("name", BEFORE)
def test_old_names_are_gone(name: str) -> None:
    assert not exists(name)
