"""The built wheel, away from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_has_the_recipes_and_trains(tmp_path: Path) -> None:
    def run(*arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = str(tmp_path / "site")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", site, str(wheel))
    assert run("-c", "import tracegrad; print(tracegrad.__file__)", PYTHONPATH=site).startswith(site)
    assert "digits" in run("-m", "tracegrad", "recipes", PYTHONPATH=site)
    assert "digits" in run("-m", "tracegrad_command", "recipes", PYTHONPATH=site)
    run("-m", "tracegrad", "train", "digits", "--training.epochs", "1", PYTHONPATH=site)
    assert list(tmp_path.glob("runs/digits/*/seed-0/result.json"))
