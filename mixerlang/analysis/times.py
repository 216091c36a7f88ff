"""How long a model takes on a GPU, as a table."""

from __future__ import annotations

from ..diagnostics.terminal import width
from .roofline import Latency, Time
from .table import cut
from .units import seconds, si

COLUMNS = {"forward": "prefill", "training": "forward", "backward": "backward", "step": "step"}
"""Headings by pass; `forward` under eval() is a prefill."""


def time_lines(latency: Latency) -> str:
    """Fits 100 columns: seconds of each pass by kind, and what bounds it."""
    kinds = list(latency.times["forward"])
    rows = [["", *COLUMNS.values()]]
    for kind in kinds:
        rows.append([cut(kind, 24), *(_cell(latency.times[name][kind]) for name in COLUMNS)])
    rows.append(["total", *(_cell(latency.total(name)) for name in COLUMNS)])
    columns = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, columns) for row in rows]
    rule = "─" * (sum(columns) + 2 * (len(columns) - 1))
    return "\n".join([_head(latency), "", lines[0], rule, *lines[1:-1], rule, lines[-1], "",
                      *_whole(latency)])


def _head(latency: Latency) -> str:
    return f"{latency.device.name}, an estimate: seconds of kernels, and what bounds them"


def _cell(time: Time) -> str:
    return f"{seconds(time.seconds)} {time.bound:<8}" if time.seconds else "0         "


def _whole(latency: Latency) -> list[str]:
    analysis = latency.analysis
    tokens = analysis.batch * analysis.length
    lines = [
        ("prefill", latency.prefill, tokens, ""),
        ("decoding step", latency.step, analysis.batch, "; replayed as one CUDA graph"),
        ("training step", latency.training, tokens, f"; MFU {latency.mfu:.0%}, AdamW included"),
    ]
    return [f"{name}: {seconds(time)}, {si(count / time)} tokens/s{more}"
            for name, time, count, more in lines]


def _line(row: list[str], columns: list[int]) -> str:
    cells = [cell + " " * (column - width(cell)) if place == 0 else
             " " * (column - width(cell)) + cell
             for place, (cell, column) in enumerate(zip(row, columns, strict=True))]
    return "  ".join(cells).rstrip()
