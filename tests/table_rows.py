"""Tables of a documentation page, each row of which is held by an example."""

import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
Example = Callable[[], None]


class Rows:
    """The rows of the tables under some headings of a page, with what their second cells claim.

    Attributes:
        examples: by row.
    """

    def __init__(self, page: str, *headings: str) -> None:
        sections = re.split(r"^## (.*)\n", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
        tables = dict(zip(sections[1::2], sections[2::2], strict=True))
        lines = [line for heading in headings for line in tables[heading].splitlines() if line.startswith("| ")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        self.claims = {row: claim for row, claim, _ in cells if claim != "Works"}
        self.examples: dict[str, Example] = {}

    def row(self, beginning: str, claim: str) -> Callable[[Example], Example]:
        """Makes a function the example of the row that is so, or begins so, if the page claims the same of it."""
        rows = [row for row in self.claims if row == beginning] or [
            row for row in self.claims if row.startswith(beginning)
        ]
        assert len(rows) == 1, f"{len(rows)} rows begin with {beginning!r}"
        assert self.claims[rows[0]] == claim, f"the page claims {self.claims[rows[0]]!r} of {rows[0]!r}, not {claim!r}"

        def hold(example: Example) -> Example:
            self.examples[rows[0]] = example
            return example

        return hold

    def run(self, row: str) -> None:
        """Runs the example of a row."""
        assert row in self.examples, f"no example shows what the page says of {row!r}"
        self.examples[row]()
