"""A hook of MkDocs: a page that would load something from the network is an error."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

_LOADS = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*\brel="(?:stylesheet|preload|icon|preconnect)"))\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"""
)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Checks the finished page."""
    elsewhere = _LOADS.search(output)
    if elsewhere:
        raise PluginError(f"{page.file.src_uri} loads {elsewhere[1]}; the site must work without a network")
    return output
