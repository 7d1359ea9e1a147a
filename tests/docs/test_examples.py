"""Every Python example of the documentation runs as it is printed, page by page, and prints what the page says."""

import re
from pathlib import Path

import pytest
import torch

import tracegrad as tg
from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.snn.norms import NORMS
from tracegrad.snn.surrogate import SURROGATES

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r'^```(python|text title="Output")\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "src/tracegrad/core/pairing/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = {str(page.relative_to(ROOT)): BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch, tmp_path):
    """What an example registers, the files that it writes, and the random state that it leaves are gone after it."""
    monkeypatch.chdir(tmp_path)
    for registry in (RELATIONS, NORMALIZATIONS, SCALINGS, SURROGATES, NORMS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    torch.manual_seed(0)


@pytest.mark.parametrize("page", [page for page, blocks in EXAMPLES.items() if blocks])
def test_examples_of_a_page_run_in_order(page, capsys):
    # Nothing is given to an example but what the README's first one calls "your training script".
    names = {"__name__": page}
    if page == "README.md":
        names |= {"model": tg.models.resnet(blocks=(1,), width=4), "example_input": torch.randn(1, 3, 8, 8)}
    for number, (kind, block) in enumerate(EXAMPLES[page], start=1):
        if kind == "python":
            exec(compile(block, f"{page}, example {number}", "exec"), names)
        else:
            printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
            assert printed == block.rstrip("\n"), f"{page}, output {number}, prints otherwise"


def test_every_page_that_shows_code_shows_an_example_that_runs():
    shown = {page for page, blocks in EXAMPLES.items() if blocks}
    assert {"README.md", "docs/index.md", "docs/extend.md", "docs/attach/pytorch.md"} <= shown
