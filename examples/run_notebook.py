"""Runs a notebook's cells and keeps what they print and draw in it; needs no Jupyter.

python examples/run_notebook.py examples/method.ipynb [OUTPUT]
"""

import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells, run in their order."""
    names: dict[str, Any] = {"__name__": "notebook"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"cell {count}", "exec"), names)  # noqa: S102 - our own notebook
        cell["execution_count"], cell["outputs"] = count, []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": text})
        for number in plt.get_fignums():
            file = io.BytesIO()
            plt.figure(number).savefig(file, format="png", dpi=80)
            data = {"image/png": base64.b64encode(file.getvalue()).decode()}
            cell["outputs"].append({"output_type": "display_data", "data": data, "metadata": {}})
        plt.close("all")
    return notebook


if __name__ == "__main__":
    path = Path(sys.argv[1])
    content = json.dumps(run(json.loads(path.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False)
    Path(sys.argv[-1]).write_text(content + "\n", encoding="utf-8")
