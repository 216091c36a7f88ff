"""Rows of text as columns for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..diagnostics.terminal import clean, width

GAP = "  "


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Rows under one another, a rule below the first; columns in `right` end in line."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths, right) for row in cells]
    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    padded = []
    for place, (cell, columns) in enumerate(zip(row, widths, strict=True)):
        space = " " * (columns - width(cell))
        padded.append(space + cell if place in right else cell + space)
    return GAP.join(padded).rstrip()
