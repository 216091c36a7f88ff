"""An analysis as a table: one row per kind of layer, then what stands around them, and the sum."""

from __future__ import annotations

from dataclasses import dataclass

from ..diagnostics.terminal import clean, width
from ..ir.groups import spell_indices
from .report import Analysis, Cost, LayerCost

HEADINGS = ("", "mixer", "layers", "parameters", "FLOPs", "cache")
WIDEST = (22, 26, 16, 17, 10, 10)
"""Columns that a cell may take; what is longer is cut. With gaps of two they add up to 100 or
less, up to hundreds of billions of parameters."""


@dataclass(frozen=True)
class Row:
    name: str
    mixer: str
    layers: str
    cost: Cost

    def cells(self) -> tuple[str, ...]:
        cost = self.cost
        return (self.name, self.mixer, self.layers, f"{cost.parameters:,}",
                si(cost.flops_forward_dense), binary(cost.cache_bytes))


def table(analysis: Analysis) -> str:
    """Fits 100 columns."""
    rows = [*_kinds(analysis.layers)]
    rows += [Row(name, "", "", cost) for name, cost in analysis.outside.items()]
    cells = [HEADINGS, *(row.cells() for row in rows), Row("total", "", "", analysis.total).cells()]
    cells = [tuple(map(_cut, line, WIDEST)) for line in cells]
    columns = [max(width(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = [_line(line, columns) for line in cells]
    rule = "─" * (sum(columns) + 2 * (len(columns) - 1))
    return "\n".join([*_head(analysis), "", lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _head(analysis: Analysis) -> list[str]:
    params = ", ".join(f"{name}={value}" for name, value in analysis.params.items())
    return [
        _cut(f"{analysis.model}{f' with {params}' if params else ''}", 100),
        f"batch {analysis.batch:,}, length {analysis.length:,}, {analysis.dtype}; "
        f"weights {binary(analysis.weight_bytes)}",
        "FLOPs of the dense forward, a multiply-add being two; cache for decoding"
        + (" through kernels" if analysis.backend == "kernels" else ""),
    ]


def _kinds(layers: tuple[LayerCost, ...]) -> list[Row]:
    """Layers of one label and mixer that cost the same in one row, each row the sum of its layers.

    A tied layer counts its weights once, so the first may differ from the rest by its parameters.
    """
    found: dict[tuple[object, ...], list[LayerCost]] = {}
    for layer in layers:
        cost = layer.cost
        key = (layer.label, layer.mixer, cost.flops_forward_dense, cost.cache_bytes)
        found.setdefault(key, []).append(layer)
    return [
        Row(same[0].label, same[0].mixer, spell_indices([layer.index for layer in same]),
            sum((layer.cost for layer in same), Cost()))
        for same in found.values()
    ]


def _line(cells: tuple[str, ...], columns: list[int]) -> str:
    """Words to the left, numbers to the right."""
    padded = []
    for place, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        space = " " * (column - width(cell))
        padded.append(cell + space if place < 3 else space + cell)
    return "  ".join(padded).rstrip()


def _cut(text: str, columns: int) -> str:
    text = clean(text)
    return text if len(text) <= columns else text[: columns - 1] + "…"


def si(number: int) -> str:
    """Three digits and a power of ten: 1.23 T."""
    units = ("", " k", " M", " G", " T", " P", " E", " Z", " Y", " R", " Q")
    return _scaled(number, 1000, units)


def binary(number: int) -> str:
    """Three digits and a power of 1024: 1.50 MiB."""
    units = (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB", " ZiB", " YiB")
    return _scaled(number, 1024, units)


def _scaled(number: int, base: int, units: tuple[str, ...]) -> str:
    value, place = float(number), 0
    while value >= 999.5 and place < len(units) - 1:
        value, place = value / base, place + 1
    if value >= 999.5:
        return f"{number:.2e}"
    digits = 0 if place == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{units[place]}"
