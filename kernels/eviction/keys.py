"""What the eviction kernels share: where a block of tokens lies, and how tokens are ordered.

A row is one KV head of one batch element. Its tokens are cut into blocks of BLOCK; a block belongs
to one sequence, so packed sequences have a table of blocks (`place_blocks`). A token that competes
has an int64 key, its score's bits above, its position below: keys differ, and the higher one
stays. 0 is the key of a token that does not compete, and of an empty slot.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

LAST = tl.constexpr(2**31 - 1)
"""The largest position, and the time of death of a token that stays."""

PINNED = tl.constexpr(2**63 - 1)
"""A key above all others: a slot that no token can have."""

VARYING = ("blocks", "tokens", "sequences", "unit", "length", "window", "budget", "sinks")
"""Integers that a kernel is not compiled anew for."""


@triton.jit
def program(blocks):
    """Row and block of this program; rows are one after another in the grid."""
    index = tl.program_id(0)
    return (index // blocks).to(tl.int64), index % blocks


@triton.jit
def place(table_ptr, block, blocks, tokens, BLOCK: tl.constexpr):
    """Where a block lies: its first token and the one past its last, the first token of its
    sequence, and of that sequence the first block and the one past its last."""
    if table_ptr is None:
        start = block * BLOCK
        end = tl.minimum(start + BLOCK, tokens)
        origin, first, past = 0, 0, blocks
    else:
        at = table_ptr + block * 5
        start, end, origin = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        first, past = tl.load(at + 3), tl.load(at + 4)
    return start, end, origin, first, past


@triton.jit
def load_scores(z_ptr, j, end, origin, sinks, floor):
    """Scores at positions j < end as float32, those of sinks infinite; and which compete."""
    z = tl.load(z_ptr + j, mask=j < end, other=float("-inf")).to(tl.float32)
    z = tl.where(j - origin < sinks, float("inf"), z)
    return z, (z > floor) & (j < end)


@triton.jit
def key_of(z, j, competes):
    """int64 keys: z descending, then position ascending, is the key descending."""
    bits = tl.where(z == 0, 0.0, z).to(tl.int32, bitcast=True)  # -0 is 0
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 0x80000000
    return tl.where(competes, (rising << 31) | (LAST - j), 0)


@triton.jit
def position_of(key):
    return LAST - (key & LAST).to(tl.int32)


@triton.jit
def total(counts_ptr, first, past):
    """The sum of counts[first:past]."""
    found = tl.zeros([128], tl.int32)
    for at in range(first, past, 128):
        index = at + tl.arange(0, 128)
        found += tl.load(counts_ptr + index, mask=index < past, other=0)
    return tl.sum(found)


@triton.jit
def pinned_slots(slot, budget, SLOTS: tl.constexpr):
    """An empty list of `budget` slots: those that are too many are pinned."""
    return tl.where(slot < SLOTS - budget, PINNED, tl.zeros(slot.shape, tl.int64))


@triton.jit
def merged(held, arrived):
    """The best of two lists of one length: `held` descending, `arrived` ascending; descending."""
    return tl.bitonic_merge(tl.maximum(held, arrived), descending=True)
