"""Lines of a source with marks under a span."""

from __future__ import annotations

from collections.abc import Iterator

from ..source import Span
from .terminal import clean, paint, width

TAB = 4
LINES = 6
"""Lines shown of a span; of a longer one the first ones and the last two."""
COLUMNS = 100
"""Characters shown of a line; of a longer one those around the mark."""
LEAD = 30
"""Characters kept before the mark of a line that is cut."""


def snippet(span: Span, mark: str, style: str, color: bool) -> list[str]:
    """The lines of a span, numbered, each with marks under its part of it."""
    parts = list(_parts(span))
    gutter = " " * len(str(parts[-1][0]))
    bar = paint(f"{gutter} |", "frame", color)
    rows = [bar]
    last = parts[0][0]
    for number, start, end in parts:
        if number > last + 1:
            rows.append(paint(f"{gutter} ...", "frame", color))
        last = number
        text, before, marked = _fit(span.source.line(number), start, end)
        rows.append(f"{paint(f'{number:>{len(gutter)}} |', 'frame', color)} {text}".rstrip())
        if marked:
            rows.append(f"{bar} {' ' * before}{paint(mark * marked, style, color)}")
    return rows


def _parts(span: Span) -> Iterator[tuple[int, int, int]]:
    """What to show, line by line: its number, and columns from 0 to mark, the end exclusive.

    Indentation and empty lines inside a span are not marked; a span without width is, by one mark.
    """
    (first, begin), (last, finish) = span.begin, span.finish
    if finish == 1 and last > first:  # the span ends with a newline
        last -= 1
        finish = len(span.source.line(last)) + 1
    for number in _shown(first, last):
        line = span.source.line(number)
        start = begin - 1 if number == first else len(line) - len(line.lstrip())
        end = finish - 1 if number == last else len(line.rstrip())
        start, end = min(start, len(line)), min(end, len(line))
        yield number, start, max(end, start + (number == first))


def _shown(first: int, last: int) -> list[int]:
    if last - first < LINES:
        return list(range(first, last + 1))
    return [*range(first, first + LINES - 2), last - 1, last]


def _fit(line: str, start: int, end: int) -> tuple[str, int, int]:
    """A line as printed, cut where it is long; the cells before its mark, and those marked."""
    low = max(0, start - LEAD) if len(line) > COLUMNS else 0
    high = low + COLUMNS
    pieces = _pieces(line[low:high])
    if low:
        pieces[0] = "…"
    if high < len(line):
        pieces[-1] = "…"
    before = width("".join(pieces[: start - low]))
    marked = width("".join(pieces[start - low : end - low]))
    return "".join(pieces), before, max(marked, start < end)


def _pieces(line: str) -> list[str]:
    """What each character is printed as; tabs reach to the next stop."""
    pieces, column = [], 0
    for char in line:
        piece = " " * (TAB - column % TAB) if char == "\t" else clean(char)
        column += width(piece)
        pieces.append(piece)
    return pieces
