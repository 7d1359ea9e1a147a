"""Studies in processes of their own: one, or two that train together."""

import os
import subprocess
import sys

ONE = [sys.executable, "-m", "tracegrad"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tracegrad"]


def start(command, folder, *options):
    """Starts the study of recipe.yaml in a folder; the first option is the name of its own folder in it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*command, "study", str(folder / "recipe.yaml"), "--output", str(folder / options[0]), *options[1:]]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(command, folder, *options, timeout=250):
    """The same to its end; returns what it printed."""
    process = start(command, folder, *options)
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, out + err
    return out
