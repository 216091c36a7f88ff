"""The one record of what is wrong with a spec, and the list that collects it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..source import Span
from .codes import CODES

LIMIT = 100
"""Diagnostics kept of one run; a last one says how many more there were."""


Help = str | Callable[[], str | None] | None
"""The way out, or what finds it: asked only for diagnostics that are kept, each once."""


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Note:
    """A second place that explains a diagnostic."""

    message: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What is wrong, where, and the way out.

    `span` is None only when there is no text to point into (an unreadable file, a bad --set).
    """

    code: str
    severity: Severity
    message: str
    span: Span | None
    help: str | None = None
    notes: tuple[Note, ...] = ()


class Diagnostics:
    """Collects diagnostics of one run, each (code, span) once, at most LIMIT of them.

    An error takes the place of the latest warning where there is no room.
    """

    def __init__(self) -> None:
        self._items: dict[tuple[object, ...], Diagnostic] = {}
        self.dropped = 0

    def add(
        self,
        code: str,
        span: Span | None,
        message: str,
        *,
        help: Help = None,
        notes: tuple[Note, ...] = (),
    ) -> None:
        """Report one problem; the code decides its severity."""
        severity = Severity(CODES[code].severity)
        place = None if span is None else (span.source.path, span.start, span.end)
        # Without a span there is no place to tell two problems apart, so the message does.
        key = (code, place, message if place is None else None)
        if key in self._items:
            return
        if len(self._items) >= LIMIT:
            self.dropped += 1
            if severity is Severity.WARNING or not self._drop_warning():
                return
        found = help() if callable(help) else help
        self._items[key] = Diagnostic(code, severity, message, span, found, notes)

    def _drop_warning(self) -> bool:
        for key, item in reversed(self._items.items()):
            if item.severity is Severity.WARNING:
                del self._items[key]
                return True
        return False

    def extend(self, other: Diagnostics) -> None:
        """Add all that another run has found."""
        for item in other._items.values():
            self.add(item.code, item.span, item.message, help=item.help, notes=item.notes)
        self.dropped += other.dropped

    @property
    def errors(self) -> bool:
        return any(item.severity is Severity.ERROR for item in self._items.values())

    def sorted(self) -> list[Diagnostic]:
        """In the order of the text, file by file, with a last word on what was dropped."""
        items = sorted(self._items.values(), key=_place)
        if self.dropped:
            items.append(
                Diagnostic(
                    "MX090",
                    Severity(CODES["MX090"].severity),
                    f"{self.dropped} more diagnostics are not shown",
                    None,
                    help="mend the ones above first",
                )
            )
        return items

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.sorted())

    def __len__(self) -> int:
        return len(self._items) + bool(self.dropped)


def _place(item: Diagnostic) -> tuple[str, int, int, str]:
    if item.span is None:
        return ("", -1, -1, item.code)
    return (item.span.source.path, item.span.start, item.span.end, item.code)
