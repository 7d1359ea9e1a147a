"""tracegrad in processes of its own: one, or two that train together."""

import os
import signal
import subprocess
import sys

ONE = [sys.executable, "-m", "tracegrad"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tracegrad"]


def start(*words, command=ONE, cwd=None, **environment):
    """Starts a command of tracegrad; Ctrl-C reaches it even where these tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here is ignored there
    return subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def start_study(command, folder, *options):
    """Starts the study of recipe.yaml in a folder; the first option is the name of its own folder in it."""
    words = "study", folder / "recipe.yaml", "--output", folder / options[0], *options[1:]
    return start(*words, command=command, OMP_NUM_THREADS="1")


def run_study(command, folder, *options, timeout=250):
    """The same to its end; returns what it printed."""
    process = start_study(command, folder, *options)
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, out + err
    return out
