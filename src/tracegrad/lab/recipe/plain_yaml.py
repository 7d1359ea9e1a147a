"""YAML as recipes use it: plain values, each written once."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

DEPTH = 20  # levels of nesting: recipes have five
SIZE = 1_000_000  # characters


def read_yaml(text: str | bytes, what: str) -> Any:
    """Reads YAML of plain values: no aliases (a few hundred bytes of them can stand for gigabytes), no name twice.

    Args:
        text: the YAML; bytes are UTF-8.
        what: it is, for errors.

    Raises:
        ValueError: no YAML, or YAML of another kind. The error says where and why, and repeats nothing of the text.
    """
    if len(text) > SIZE:
        raise ValueError(f"{what} is no recipe: it has a length of {len(text):,}")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error) or "it cannot be read").split())[:100]
        raise ValueError(f"{what} is not YAML: {problem}{place}") from None


class _Loader(yaml.SafeLoader):
    """Refuses aliases, deep nesting and repeated names, and takes 1e-3 for a number as everybody does."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConstructorError(None, None, "a recipe has no anchors (&) and no aliases (*)", event.start_mark)
        self.depth += 1
        if self.depth > DEPTH:
            raise ConstructorError(None, None, f"it is nested more than {DEPTH} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                problem = f"a name must be text, not {str(name)[:60]}; put it in quotes"
                raise ConstructorError(None, None, problem, key.start_mark)
            if name in seen:
                raise ConstructorError(None, None, f"{name[:60]!r} is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
