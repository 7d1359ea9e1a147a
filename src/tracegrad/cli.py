"""The command line: `tracegrad VERB`; the verbs are the functions of `tracegrad.verbs`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Container, Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from inspect import Parameter, getdoc, signature
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser

from tracegrad.lab.parsing import add_fields, method_help, parse, parse_recipe
from tracegrad.verbs import VERBS

ON_A_RECIPE = {"train", "study"}

# Arguments that do not follow from a signature alone.
ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "recipe": ("recipe", {"help": "a shipped recipe (`tracegrad recipes` lists them) or the path of a YAML file"}),
    "runs": ("runs", {"nargs": "+", "type": Path, "help": "folders of runs or studies"}),
    "resume": (
        "--resume",
        {
            "action": ActionYesNo(no_prefix="no-"),
            "default": True,
            "help": "go on with an interrupted run after the last epoch that it finished; --no-resume begins it again",
        },
    ),
}

HELP_NOTE = """\
Fields are the recipe's; options override them. A default holds where neither says otherwise.
Print a recipe with `tracegrad recipes --show NAME`.
"""


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
        bad_input = isinstance(error, ValueError | TypeError | OSError)
        message = " ".join(str(error).split()) or type(error).__name__
        hint = "" if bad_input else " (--traceback shows where)"
        sys.stderr.write(f"tracegrad: error: {message}{hint}\n")
        return 2 if bad_input else 1
    return 0


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
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
    elif arguments[0] == "--version":
        sys.stdout.write(f"tracegrad {version('tracegrad')}\n")
    elif arguments[0] not in VERBS:
        raise ValueError(f"unknown verb {arguments[0]!r}; there are {', '.join(VERBS)}")
    else:
        _run_verb(arguments[0], arguments[1:])


def _run_verb(verb: str, arguments: list[str]) -> None:
    function = VERBS[verb]
    description = (getdoc(function) or "").partition("\nArgs:")[0]
    parser = ArgumentParser(prog=f"tracegrad {verb}", description=description, exit_on_error=False, allow_abbrev=False)
    on_a_recipe = verb in ON_A_RECIPE
    for name, (flag, options) in ARGUMENTS.items():
        if name in signature(function).parameters:
            parser.add_argument(flag, **options)
    named = {name for name, each in signature(function).parameters.items() if each.kind is Parameter.KEYWORD_ONLY}
    others = signature(function).parameters.keys() - named
    for skipped, positional in ((named, not on_a_recipe), (others, False)):
        parser.add_function_arguments(function, as_group=False, as_positional=positional, skip={*ARGUMENTS, *skipped})
    arguments = [_underscored(argument, signature(function).parameters) for argument in arguments]
    if not on_a_recipe:
        function(**parse(parser, arguments).as_dict())
        return
    parser.usage = f"tracegrad {verb} RECIPE [options] [--FIELD VALUE ...]"
    add_fields(parser)
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"{parser.format_help()}\n{method_help()}\n{HELP_NOTE}")
        return
    recipe, options = parse_recipe(parser, arguments)
    function(recipe, **options)


def _underscored(argument: str, known: Container[str]) -> str:
    """An option of a verb by its parameter's name: --time-steps is --time_steps."""
    option, equals, value = argument.partition("=")
    name = option.removeprefix("--").replace("-", "_")
    return f"--{name}{equals}{value}" if option.startswith("--") and name in known else argument


def _overview() -> str:
    lines = [f"  {verb:<9} {(getdoc(function) or '').splitlines()[0]}" for verb, function in VERBS.items()]
    return "\n".join(
        [
            "usage: tracegrad VERB ...",
            "",
            "Trains deep spiking neural networks with gradients scaled by local spike information.",
            "",
            "verbs:",
            *lines,
            "",
            "options:",
            "  --help, --version",
            "  --traceback   where an error comes from, after any verb",
            "",
            "Begin with `tracegrad study digits`; `tracegrad VERB --help` says more.",
            "",
        ]
    )
