"""The API reference names everything that is public."""

import re
from pathlib import Path

import tracegrad as tg

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_public_name_is_in_the_reference():
    entries = {
        entry
        for page in REFERENCE.glob("*.md")
        for entry in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    missing = [name for name in tg.__all__ if f"tracegrad.{name}" not in entries]
    assert not missing, f"docs/reference has no entry '::: tracegrad.NAME' for {', '.join(missing)}"
