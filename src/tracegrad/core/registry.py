"""Named choices that users can extend: relations, scalings, surrogates, models, objectives, data sets."""

from collections.abc import Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """A mapping from names to entries whose errors list what would have been right.

    Args:
        kind: what an entry is, in the singular, as errors should call it ("relation", "surrogate", ...).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> Entry:
        """Adds `entry` under `name` and returns it.

        Raises:
            ValueError: `name` is taken by something else.
        """
        if name in self._entries and self._entries[name] is not entry:
            raise ValueError(f"a {self.kind} named {name!r} is registered already; choose another name")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            known = ", ".join(repr(known) for known in self)
            raise ValueError(f"unknown {self.kind} {name!r}; the known ones are {known}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
