"""How heads are cut for matrix products, and numbers spelled in names; for every room.

Imports nothing but the standard library, so that checks and analysis may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_PIECE = 16  # a matrix unit's inner dimension


@dataclass(frozen=True)
class Piece:
    """Channels [start, start + width) of a head; those from `start + used` on are padding."""

    suffix: str
    start: int
    width: int
    used: int

    @property
    def padded(self) -> bool:
        return self.used < self.width


def pieces(dim: int) -> tuple[Piece, ...]:
    """A head cut into power-of-two widths, largest first: 96 = 64 + 32, 100 = 64 + 32 + 16."""
    cuts: list[tuple[int, int, int]] = []
    start = 0
    while start < dim:
        rest = dim - start
        width = max(SMALLEST_PIECE, 1 << (rest.bit_length() - 1))
        cuts.append((start, width, min(width, rest)))
        start += width
    suffixes = [""] if len(cuts) == 1 else [str(index) for index in range(len(cuts))]
    return tuple(Piece(suffix, *cut) for suffix, cut in zip(suffixes, cuts, strict=True))


def spelled(number: float) -> str:
    """A number as part of a module's name, all its digits: 0.25 is 0p25."""
    return repr(number).replace(".", "p").replace("-", "m").replace("+", "")
