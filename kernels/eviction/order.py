"""The best tokens so far, at the head of every block: sorted lists and a scan of merges.

A block's tokens are sorted. Runs of lists are merged one after another, each keeping the best
SLOTS >= budget; where there are many runs, runs of runs as well. Sequences in which no more than
`budget` tokens compete are left out: their lists hold anything.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

from .keys import (
    LAST,
    PINNED,
    VARYING,
    key_of,
    load_scores,
    merged,
    pinned_slots,
    place,
    position_of,
    program,
    total,
)


@triton.jit(do_not_specialize=VARYING)
def sort_blocks(
    z_ptr,
    table_ptr,
    count_ptr,
    over_ptr,
    ranked_ptr,
    blocks,
    tokens,
    budget,
    sinks,
    floor,
    BLOCK: tl.constexpr,
):
    """over: whether a block's sequence exceeds the budget. ranked: then, the block's keys,
    descending."""
    row, block = program(blocks)
    start, end, origin, first, past = place(table_ptr, block, blocks, tokens, BLOCK)
    over = total(count_ptr + row * blocks, first, past) > budget
    tl.store(over_ptr + row * blocks + block, over.to(tl.int32))
    if over:
        j = start + tl.arange(0, BLOCK)
        z, competes = load_scores(z_ptr + row * tokens, j, end, origin, sinks, floor)
        keys = tl.sort(key_of(z, j, competes), descending=True)
        at = ranked_ptr + (row * blocks + block) * BLOCK
        tl.store(at + tl.arange(0, BLOCK), keys)


@triton.jit(do_not_specialize=VARYING)
def merge_runs(
    table_ptr,
    over_ptr,
    list_ptr,
    within_ptr,
    whole_ptr,
    blocks,
    tokens,
    unit,
    length,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Merge lists of BLOCK, each of the last sequence in `unit` blocks, `length` of them to a run.

    within, where asked for: at each list, the best of its sequence in this run before it. whole: of
    the run's last sequence.
    """
    lists = tl.cdiv(blocks, unit)
    runs = tl.cdiv(lists, length)
    row, run = program(runs)
    start, end = run * length, tl.minimum(run * length + length, lists)
    if total(over_ptr + row * blocks, start * unit, tl.minimum(end * unit, blocks)) == 0:
        return
    slot = tl.arange(0, SLOTS)
    reverse = SLOTS - 1 - slot
    best = tl.zeros([SLOTS], tl.int64)
    list_at = list_ptr + row * lists * BLOCK
    arriving = tl.load(list_at + start * BLOCK + reverse, mask=reverse < BLOCK, other=0)
    for index in range(start, end):
        # The next list is on its way while this one is merged.
        is_next = (reverse < BLOCK) & (index + 1 < end)
        coming = tl.load(list_at + (index + 1) * BLOCK + reverse, mask=is_next, other=0)
        newest = tl.minimum(index * unit + unit, blocks) - 1
        _, _, _, first, _ = place(table_ptr, newest, blocks, tokens, BLOCK)
        best = tl.where(first >= index * unit, 0, best)
        if within_ptr is not None:
            tl.store(within_ptr + (row * lists + index) * SLOTS + slot, best)
        best = merged(best, arriving)
        arriving = coming
    tl.store(whole_ptr + (row * runs + run) * SLOTS + slot, best)


@triton.jit(do_not_specialize=VARYING)
def merge_across(
    table_ptr,
    over_ptr,
    list_ptr,
    base_ptr,
    before_ptr,
    held_ptr,
    blocks,
    tokens,
    budget,
    unit,
    length,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """What the sequence that goes on into each stretch of `unit` blocks has in its slots there.

    list: the best of the last sequence in each stretch. base: where given, the same as before, of
    stretches `length` times as long. before: keys, descending, the slots that are too many pinned.
    held, where asked for: positions, ascending, LAST after them.
    """
    lists = tl.cdiv(blocks, unit)
    row, index = program(lists)
    _, _, _, first, _ = place(table_ptr, index * unit, blocks, tokens, BLOCK)
    if (tl.load(over_ptr + row * blocks + index * unit) == 0) | (first == index * unit):
        return
    slot = tl.arange(0, SLOTS)
    begin = first // unit
    best = pinned_slots(slot, budget, SLOTS)
    if base_ptr is not None:
        stretch = index // length
        if first < stretch * length * unit:
            begin = stretch * length
            best = tl.load(base_ptr + (row * tl.cdiv(lists, length) + stretch) * SLOTS + slot)
    list_at = list_ptr + row * lists * SLOTS + SLOTS - 1 - slot
    arriving = tl.load(list_at + begin * SLOTS, mask=(begin < index) & (slot >= 0), other=0)
    for earlier in range(begin, index):
        is_next = (earlier + 1 < index) & (slot >= 0)
        coming = tl.load(list_at + (earlier + 1) * SLOTS, mask=is_next, other=0)
        best = merged(best, arriving)
        arriving = coming
    at = (row * lists + index) * SLOTS + slot
    tl.store(before_ptr + at, best)
    if held_ptr is not None:
        taken = (best > 0) & (best < PINNED)
        tl.store(held_ptr + at, tl.sort(tl.where(taken, position_of(best), LAST)))
