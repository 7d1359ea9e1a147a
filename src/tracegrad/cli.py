"""The command line: `tracegrad COMMAND`; the commands are the functions of `tracegrad.commands`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from inspect import getdoc
from typing import Any

EXTRA = {
    *("PIL", "filelock", "lightning_fabric", "matplotlib", "numpy", "pydantic", "rich"),
    *("safetensors", "scipy", "sklearn", "torchvision", "yaml"),
}
"""The packages that the extra `lab` brings."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Returns:
        The exit code: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in arguments
    received: list[int] = []
    try:
        with _terminable(received):
            _run([argument for argument in arguments if argument != "--traceback"])
            sys.stdout.flush()
    except BrokenPipeError:  # who reads our output has seen enough: `tracegrad recipes | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        where = f" ({interrupt})" if str(interrupt) else ""
        command = shlex.join(["tracegrad", *(each for each in arguments if each != "--no-resume")])
        sys.stderr.write(f"tracegrad: interrupted{where}; go on with: {command}\n")
        return 128 + (received[0] if received else signal.SIGINT)
    except Exception as error:
        if traceback:
            raise
        sys.stderr.write(f"tracegrad: error: {_one_line(error)}\n")
        return 2 if _is_bad_input(error) else 1
    return 0


def _is_bad_input(error: Exception) -> bool:
    return isinstance(error, ValueError | TypeError | OSError) or _missing(error) is not None


def _missing(error: Exception) -> str | None:
    """The package of the extra `lab` that is not installed."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return package if package in EXTRA else None


def _one_line(error: Exception) -> str:
    """An error as one line that a terminal shows as it is, whatever names are in it."""
    if package := _missing(error):
        return f"the command line needs the package {package}: pip install 'tracegrad[lab]'"
    message = " ".join(str(error).split()) or type(error).__name__
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in message)
    if len(shown) > 1500:
        shown = f"{shown[:1000]} ... {shown[-400:]}"
    return shown if _is_bad_input(error) else f"{shown} (--traceback shows where)"


@contextmanager
def _terminable(received: list[int]) -> Generator[None]:
    """Makes SIGTERM interrupt a block as Ctrl-C does, and notes it in `received`."""

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one can set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        sys.stdout.write(f"tracegrad {version('tracegrad')}\n")
        return
    from tracegrad.command_line import run_command
    from tracegrad.commands import COMMANDS

    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview(COMMANDS))
    elif arguments[0] not in COMMANDS:
        raise ValueError(f"unknown command {arguments[0]!r}; there are {', '.join(COMMANDS)}")
    else:
        run_command(arguments[0], COMMANDS[arguments[0]], arguments[1:])


def _overview(commands: dict[str, Callable[..., None]]) -> str:
    lines = [f"  {name:<9} {(getdoc(function) or '').splitlines()[0]}" for name, function in commands.items()]
    return "\n".join(
        [
            "usage: tracegrad COMMAND ...",
            "",
            "Trains deep spiking neural networks with gradients scaled by local spike information.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  --help, --version",
            "  --traceback   where an error comes from, after any command",
            "",
            "Begin with `tracegrad study digits`; `tracegrad COMMAND --help` says more.",
            "",
        ]
    )
