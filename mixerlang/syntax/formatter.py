"""`mixerlang fmt`: one layout for every spec. It has no options and changes no meaning."""

from __future__ import annotations

from ..diagnostics import Diagnostics
from ..source import Source
from .outline import outline
from .parser import parse
from .printer import Printer
from .tokens import tokenize


def format_source(source: Source) -> tuple[str | None, Diagnostics]:
    """The text of `source` in its one layout, or None if it has syntax errors."""
    _, diagnostics = parse(source)
    if diagnostics.errors:
        return None, diagnostics
    return Printer().file(outline(tokenize(source, Diagnostics()))), diagnostics
