"""`pip install tracegrad` brings PyTorch and its needs: the library works, the command line says what it lacks."""

import subprocess
import sys

BLOCK = """
import sys
for package in ("torchvision", "lightning_fabric", "lightning", "rich", "matplotlib", "numpy", "pydantic", "scipy",
                "sklearn", "yaml", "PIL", "safetensors", "nir", "tensorboard"):
    sys.modules[package] = None  # as if it were not installed
"""

LIBRARY = """
import torch
import tracegrad as tg
import tracegrad.event_camera
model = tg.models.resnet20(width=2)
attachment = tg.attach(model, torch.randn(1, 3, 8, 8))
loss = tg.objectives.mean_cross_entropy(model(torch.randn(2, 3, 8, 8)), torch.tensor([0, 1]))
loss.backward()
print(len(attachment.pairs))
"""


def run(code):
    command = [sys.executable, "-W", "ignore", "-c", BLOCK + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_library_works():
    process = run(LIBRARY)
    assert (process.returncode, process.stderr) == (0, "")
    assert int(process.stdout) == 21


def test_the_command_line_says_what_to_install():
    for arguments in (["study", "digits"], ["recipes"], []):
        process = run(f"from tracegrad.cli import main; raise SystemExit(main({arguments!r}))")
        assert process.returncode == 2
        assert process.stderr.startswith("tracegrad: error: the command line needs the package ")
        assert process.stderr.endswith(": pip install 'tracegrad[lab]'\n")
        assert process.stdout == ""


def test_the_version_needs_nothing():
    process = run("from tracegrad.cli import main; raise SystemExit(main(['--version']))")
    assert (process.returncode, process.stderr) == (0, "")
