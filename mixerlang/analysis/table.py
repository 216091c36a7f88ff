"""An analysis as a table: one row per kind of layer, then what stands around them, and the sum."""

from __future__ import annotations

from collections.abc import Sequence

from ..diagnostics.terminal import clean, width
from . import formulas
from .kinds import Kind, kinds, outside
from .markup import MARKUPS
from .metrics import COUNTS, PASSES, Cost
from .report import Analysis
from .units import binary, si

HEADINGS = ("", "mixer", "layers", "parameters", "forward", "backward", "step", "cache", "kept")
WIDEST = (14, 13, 10, 15, 8, 8, 8, 8, 8)
"""Columns that a cell may take; what is longer is cut. With gaps of one and, before numbers, of
two they add up to 100 or less, up to hundreds of billions of parameters."""
WORDS = 3
"""Columns of text, to the left; numbers go to the right."""
MOST = 100


def table(analysis: Analysis, count: str = "dense") -> str:
    """Fits 100 columns. count: which FLOPs the rows tell."""
    cells = [row_cells(kind, count) for kind in rows(analysis)]
    columns = _columns([HEADINGS, *cells])
    rule = "─" * len(_line(["─" * column for column in columns], columns))
    lines = [_line(line, columns) for line in (HEADINGS, *cells)]
    return "\n".join([
        *head_lines(analysis, count), "", lines[0], rule, *lines[1:-1], rule, lines[-1], "",
        *_counts(analysis.total), *_bounds(analysis),
    ])  # fmt: skip


def markup(analysis: Analysis, count: str, language: str) -> str:
    """The rows as a table of `markdown` or `latex`."""
    cells = [row_cells(kind, count) for kind in rows(analysis)]
    return MARKUPS[language](HEADINGS, cells, WORDS)


def rows(analysis: Analysis) -> list[Kind]:
    """Kinds of layers, what stands around them, and the sum."""
    total = Kind("total", "", (), analysis.total, analysis.formulas.total)
    return [*kinds(analysis), *outside(analysis), total]


def row_cells(kind: Kind, count: str) -> tuple[str, ...]:
    cost = kind.cost
    flops = [si(cost.number(f"flops.{name}.{count}")) for name in ("forward", "backward", "step")]
    held = [binary(cost.number(key)) for key in ("cache_bytes", "activation_bytes")]
    cells = (kind.name, kind.mixer, kind.layers, f"{cost.parameters:,}", *flops, *held)
    return tuple(cut(cell, most) for cell, most in zip(cells, WIDEST, strict=True))


def head_lines(analysis: Analysis, count: str) -> list[str]:
    params = ", ".join(f"{name}={value}" for name, value in analysis.params.items())
    whose = " through kernels" if analysis.backend == "kernels" else ""
    return [
        cut(f"{analysis.model}{f' with {params}' if params else ''}", MOST),
        f"batch {analysis.batch:,}, length {analysis.length:,}, {analysis.dtype}; "
        f"weights {binary(analysis.weight_bytes)}",
        f"{count} FLOPs, a multiply-add being two; cache for decoding{whose}; kept for backward",
    ]


def _counts(total: Cost) -> list[str]:
    """The three counts of each pass, side by side."""
    lines = [["FLOPs", *PASSES]]
    for count in COUNTS:
        lines.append([count, *(si(total.number(f"flops.{name}.{count}")) for name in PASSES)])
    columns = [max(map(width, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(
        cell.ljust(most) if place == 0 else cell.rjust(most)
        for place, (cell, most) in enumerate(zip(line, columns, strict=True))
    ) for line in lines]  # fmt: skip


def _bounds(analysis: Analysis) -> list[str]:
    """Where `useful` is no more than a bound."""
    names = dict.fromkeys(layer.label for layer in analysis.layers if layer.bound)
    if not names:
        return []
    return [cut(f"useful is the most that it can be: the data decide in {', '.join(names)}", MOST)]


def formula_titles(count: str) -> dict[str, str]:
    """Metrics that are told as expressions, by what they are called."""
    flops = {f"{name} FLOPs": f"flops.{name}.{count}" for name in ("forward", "backward", "step")}
    return {**flops, "cache bytes": "cache_bytes", "kept bytes": "activation_bytes"}


def formula_lines(analysis: Analysis, count: str = "dense") -> str:
    """What the rows of the table are as expressions, by range of the length."""
    keys = formula_titles(count)
    text: list[str] = [f"{count} FLOPs and bytes of B sequences of T tokens, or of L in a cache"]
    if analysis.given:
        values = ", ".join(f"{name}={value}" for name, value in analysis.given)
        text[0] += f"; ranges are those for {values}"
    for kind in rows(analysis):
        where = f", line {kind.line}" if kind.line else ""
        text += ["", clean(f"{kind.name}{f' ({kind.layers}{where})' if kind.indices else ''}")]
        for title, key in keys.items():
            found = formulas.lines(key, kind.formula[key], analysis.given)
            if found != ["O(1)  0"]:
                text += [f"  {title}", *(f"    {line}" for line in found)]
    return "\n".join(text)


def _columns(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width, column)) for column in zip(*lines, strict=True)]


def _line(cells: Sequence[str], columns: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    text = ""
    for place, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        space = " " * (column - width(cell))
        gap = "" if place == 0 else " " if place < WORDS else "  "
        text += gap + (cell + space if place < WORDS else space + cell)
    return text.rstrip()


def cut(text: str, columns: int) -> str:
    text = clean(text)
    return text if len(text) <= columns else text[: columns - 1] + "…"
