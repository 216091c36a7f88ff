"""How the work of a rotary kernel is cut into programs, and what it is specialised on."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

ELEMENTS = 1024
"""Of each half that a program holds at a time: eight per thread, 16 bytes of bf16."""

PROGRAMS = 1056
"""Below so many programs (eight for each of an H100's multiprocessors) heads are shared out."""


class Cut(NamedTuple):
    """Blocks of rows, blocks of heads, heads in a block, rows in a block."""

    row_blocks: int
    head_blocks: int
    share: int
    rows: int


@cache
def cut(rows: int, heads: int, dim: int, half: int) -> Cut:
    """For `rows` tokens of `heads` heads of `dim` channels, of which 2 * half turn."""
    block = max(1, ELEMENTS // padded(dim - half))
    row_blocks = -(-rows // block)
    share = -(-heads // min(heads, -(-PROGRAMS // row_blocks)))
    return Cut(row_blocks, -(-heads // share), share, block)


def constants(dim: int, theta: float, half: int, eps: float, rows: int) -> dict[str, Any]:
    """What the kernels are specialised on, for programs of `rows` tokens."""
    return {
        "LOG2_THETA": math.log2(theta),
        "EPS": eps,
        "DIM": dim,
        "HALF": half,
        "PADDED_HALF": padded(half),
        "PADDED_REST": padded(dim - 2 * half),
        "ROWS": rows,
    }


def padded(width: int) -> int:
    """The next power of two, 1 for an empty part."""
    return 1 << max(width - 1, 0).bit_length()
