"""The command line: `tracegrad VERB`. A verb is a function; its signature gives the options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from inspect import getdoc
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from tracegrad.lab.parsing import (
    add_fields,
    find_recipe,
    load_recipe,
    method_help,
    parse,
    parse_recipe,
    shipped_recipes,
)
from tracegrad.lab.recipe import Recipe

RUNS = Path("runs")


def train(recipe: Recipe, method: str | None = None, seed: int | None = None, output: Path | None = None) -> None:
    """Trains one network of a recipe and measures its accuracy and spikes on the test set.

    Args:
        recipe: the recipe.
        method: one of the recipe's methods; by default the first that scales gradients.
        seed: seed of the initial weights and the order of data; by default the recipe's first.
        output: folder of the study; the run goes to METHOD/seed-N in it. By default runs/NAME.
    """
    from tracegrad.lab.runs import plan
    from tracegrad.lab.study import run_all

    method = method or next((name for name, options in recipe.methods.items() if options.alpha), recipe.baseline)
    single = recipe.only(str(method), recipe.seeds[0] if seed is None else seed)
    (run,) = plan(single, output or RUNS / recipe.name)
    console = Console()
    run_all([run], console)
    console.print(f"everything about this run is in {run.folder}", soft_wrap=True, highlight=False)


def study(recipe: Recipe, output: Path | None = None) -> None:
    """Trains every method of a recipe with every seed, and compares them in a table and a figure.

    Runs that are complete are kept: to go on with an interrupted study, start it again.

    Args:
        recipe: the recipe.
        output: folder of the study. By default runs/NAME.
    """
    from tracegrad.lab.study import run_study

    console = Console()
    finished = run_study(recipe, output or RUNS / recipe.name, console)
    for table in filter(None, (finished.methods, finished.differences)):
        console.print()
        console.print(table.rich() if console.is_terminal else table.markdown(), soft_wrap=True, highlight=False)
    console.print(f"tables and figures are in {finished.folder}", soft_wrap=True, highlight=False)


def recipes(show: str | None = None) -> None:
    """Lists the recipes that come with tracegrad.

    Args:
        show: print this recipe instead, to read it or to make one of your own: `--show digits > mine.yaml`.
    """
    if show:
        sys.stdout.write(find_recipe(show).read_text(encoding="utf-8"))
        return
    for name in shipped_recipes():
        sys.stdout.write(f"{name:<12} {load_recipe(name).description}\n")


VERBS: dict[str, Callable[..., None]] = {"train": train, "study": study, "recipes": recipes}
ON_A_RECIPE = {"train", "study"}

HELP_NOTE = """\
Fields are the recipe's; options override them. A default holds where neither says otherwise.
Print a recipe with `tracegrad recipes --show NAME`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in arguments
    try:
        _run([argument for argument in arguments if argument != "--traceback"])
    except KeyboardInterrupt:
        sys.stderr.write("tracegrad: interrupted; the same command keeps complete runs and does the others\n")
        return 130
    except Exception as error:
        if traceback:
            raise
        bad_input = isinstance(error, ValueError | TypeError | OSError)
        message = " ".join(str(error).split()) or type(error).__name__
        hint = "" if bad_input else " (--traceback shows where)"
        sys.stderr.write(f"tracegrad: error: {message}{hint}\n")
        return 2 if bad_input else 1
    return 0


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
    if verb not in ON_A_RECIPE:
        parser.add_function_arguments(function, as_group=False, as_positional=True)
        function(**parse(parser, arguments).as_dict())
        return
    parser.usage = f"tracegrad {verb} RECIPE [options] [--FIELD VALUE ...]"
    parser.add_argument("recipe", help="a shipped recipe (`tracegrad recipes` lists them) or the path of a YAML file")
    parser.add_function_arguments(function, as_group=False, skip={"recipe"})
    add_fields(parser)
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(f"{parser.format_help()}\n{method_help()}\n{HELP_NOTE}")
        return
    recipe, options = parse_recipe(parser, arguments)
    function(recipe, **options)


def _overview() -> str:
    lines = [f"  {verb:<8} {(getdoc(function) or '').splitlines()[0]}" for verb, function in VERBS.items()]
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
