"""How products of few rows are cut into programs. Imports neither torch nor Triton."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

MOST_ROWS = 4
"""With more rows the plain cores, which do these products, are slower than memory."""

MOST_WEIGHTS = 3
"""Matrices that one launch takes."""

TILE, WARPS = 16_384, 4
"""Bytes of weights that a program has under way at once, and its warps."""

WIDEST = 4096
"""Inputs that a turn of the loop takes, at most."""

PROGRAMS = 264
"""Below so many (two for each of an H100's multiprocessors) outputs are shared out further."""


class Cut(NamedTuple):
    """Of a program: outputs, inputs per turn of its loop, warps."""

    outputs: int
    inputs: int
    warps: int


@cache
def cut(outputs: int, inputs: int, element: int, matrices: int = 1) -> Cut:
    """For `outputs` of a launch in all, each a sum over `inputs` numbers of `element` bytes;
    `matrices`: how many of them a program multiplies with at a time."""
    width = min(padded(inputs), WIDEST)
    block = max(1, TILE // (width * element * matrices))
    while block > 1 and -(-outputs // block) < PROGRAMS:
        block //= 2
    return Cut(block, width, WARPS)


def padded(width: int) -> int:
    """The next power of two."""
    return 1 << max(width - 1, 0).bit_length()
