"""A hook of MkDocs: `<!-- notebook: PATH -->` on a page becomes the notebook, with what its cells printed and drew."""

import json
import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Puts notebooks into a page."""
    root = Path(config.config_file_path).parent
    return re.sub(r"<!-- notebook: (\S+) -->", lambda found: _page(root / found[1]), markdown)


def _page(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        if "data" in output:
            parts.append(f"![what the cell draws](data:image/png;base64,{output['data']['image/png']}){{.paper}}")
        else:
            parts.append(f"```text\n{''.join(output['text'])}```")
    return parts
