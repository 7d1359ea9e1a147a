"""The FAQ quotes errors that the package really raises."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTED = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)
SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
# Strings that Python joins are joined here too: "one " \n f"two" -> one two.
JOINED = re.sub(r'"\s*\n\s*f?"', "", SOURCES)


@pytest.mark.parametrize("error", QUOTED)
def test_the_package_says_these_words(error):
    for part in error.split("…"):
        assert part.strip() in JOINED, f"docs/faq.md quotes {part.strip()!r}, which no error in src says"
