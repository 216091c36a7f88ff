"""How tokens are cut into blocks and blocks into runs, and what the kernels are specialised on."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from ..attention.intervals import SEGMENT

BLOCK = 256
"""Tokens whose fates are found together: eight words of 32 bits."""

STEP = 256
"""Entries of a list that are looked at together."""

PLACED = 64
"""Blocks that are placed together, by that many sequences at a time."""

LENGTH, SPAN = 8, 16
"""Blocks to a run, and runs to a span."""

KERNELS = {
    "place_blocks": ("compact", "BLOCK", "PLACED"),
    "count_competing": ("compact", "BLOCK"),
    "sort_blocks": ("order", "BLOCK"),
    "merge_runs": ("order", "BLOCK", "SLOTS"),
    "merge_across": ("order", "BLOCK", "SLOTS"),
    "find_deaths": ("fates", "BLOCK", "SLOTS"),
    "list_kept": ("compact", "BLOCK", "SEGMENT"),
    "list_slots": ("compact", "BLOCK", "SLOTS", "SEGMENT", "STEP"),
}
"""The kernels in the order of their launches: their module, and their constants."""

UNBOUNDED = ("place_blocks", "count_competing", "list_kept")
"""The kernels that run without a budget."""


class Cut(NamedTuple):
    """How a call is cut.

    rows: batch elements times KV heads. slots: the length of a list, the budget padded. block:
    tokens to a block. blocks: to a row, enough for packed sequences however they lie.
    """

    rows: int
    tokens: int
    slots: int
    block: int
    blocks: int

    @property
    def runs(self) -> int:
        return -(-self.blocks // LENGTH)

    @property
    def spans(self) -> int:
        return -(-self.runs // SPAN)


@cache
def cut(rows: int, tokens: int, budget: int | None, sequences: int) -> Cut:
    """`tokens` in `sequences`, `rows` times."""
    slots, block = widths(budget)
    blocks = -(-tokens // block) + min(sequences, tokens) - 1
    return Cut(rows, tokens, slots, block, blocks)


def widths(budget: int | None) -> tuple[int, int]:
    """Slots of a list, and tokens to a block."""
    return max(1 << (max(budget or 1, 1) - 1).bit_length(), BLOCK), BLOCK


def constants(name: str, slots: int, block: int) -> dict[str, int]:
    """What a kernel is specialised on."""
    known = {"BLOCK": block, "SLOTS": slots, "SEGMENT": SEGMENT, "STEP": STEP, "PLACED": PLACED}
    return {constant: known[constant] for constant in KERNELS[name][1:]}


def options(name: str, slots: int) -> dict[str, int]:
    """Warps of a program: few where it works on a block, as they wait for each other."""
    if name.startswith("merge"):
        return {"num_warps": min(max(slots // 128, 8), 16)}
    return {"num_warps": 4 if name == "place_blocks" else 1}
