"""Telling what is wrong with a spec, at the user's own line."""

from __future__ import annotations

from collections.abc import Iterable

from ..diagnostics import Diagnostics, Help, Note
from ..source import Span

PRELUDE = "prelude/"
"""Paths of provided files start so; users cannot mend them."""


def provided(span: Span | None) -> bool:
    return span is not None and span.source.path.startswith(PRELUDE)


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


class Reporter:
    """Adds diagnostics; one inside a provided definition is told at the call that led there."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self.diagnostics = diagnostics
        self.calls: list[Span] = []

    def __call__(
        self,
        code: str,
        span: Span | None,
        message: str,
        *,
        help: Help = None,
        notes: tuple[Note, ...] = (),
    ) -> None:
        place = None if span is None else self.place(span)
        if place is not span:
            notes = (*notes, Note("the rule is in this provided definition", span))
        self.diagnostics.add(code, place, message, help=help, notes=notes)

    def place(self, span: Span) -> Span:
        """The span itself, or the user's call that led into a provided definition."""
        if not provided(span):
            return span
        return next((call for call in reversed(self.calls) if not provided(call)), span)
