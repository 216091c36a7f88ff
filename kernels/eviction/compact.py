"""Which tokens compete, and the lists of those that are kept: prefix sums over blocks."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

from .keys import LAST, VARYING, load_scores, place, program, total


@triton.jit(do_not_specialize=VARYING)
def place_blocks(
    edges_ptr, table_ptr, sequences, blocks, BLOCK: tl.constexpr, PLACED: tl.constexpr
):
    """The table of blocks (blocks, 5) of packed sequences, see `place`; 0 for blocks too many."""
    block = tl.program_id(0) * PLACED + tl.arange(0, PLACED)
    start, end, origin = block * 0, block * 0, block * 0
    first, past = block * 0, block * 0
    used = 0
    for at in range(0, sequences, PLACED):
        index = at + tl.arange(0, PLACED)
        here = index < sequences
        low = tl.load(edges_ptr + index, mask=here, other=0).to(tl.int32)
        high = tl.load(edges_ptr + index + 1, mask=here, other=0).to(tl.int32)
        number = (high - low + BLOCK - 1) // BLOCK
        upto = used + tl.cumsum(number, 0)
        since = upto - number
        hit = (since[None, :] <= block[:, None]) & (block[:, None] < upto[None, :])
        begin = low[None, :] + (block[:, None] - since[None, :]) * BLOCK
        start += tl.sum(tl.where(hit, begin, 0), 1)
        end += tl.sum(tl.where(hit, tl.minimum(begin + BLOCK, high[None, :]), 0), 1)
        origin += tl.sum(tl.where(hit, low[None, :], 0), 1)
        first += tl.sum(tl.where(hit, since[None, :], 0), 1)
        past += tl.sum(tl.where(hit, upto[None, :], 0), 1)
        used += tl.sum(number)
    at = table_ptr + block * 5
    tl.store(at, start, mask=block < blocks)
    tl.store(at + 1, end, mask=block < blocks)
    tl.store(at + 2, origin, mask=block < blocks)
    tl.store(at + 3, first, mask=block < blocks)
    tl.store(at + 4, past, mask=block < blocks)


@triton.jit(do_not_specialize=VARYING)
def count_competing(
    z_ptr,
    table_ptr,
    death_ptr,
    count_ptr,
    blocks,
    tokens,
    window,
    sinks,
    floor,
    BLOCK: tl.constexpr,
):
    """count: per block. death: as if there were no budget."""
    row, block = program(blocks)
    start, end, origin, _, _ = place(table_ptr, block, blocks, tokens, BLOCK)
    j = start + tl.arange(0, BLOCK)
    _, competes = load_scores(z_ptr + row * tokens, j, end, origin, sinks, floor)
    tl.store(death_ptr + row * tokens + j, tl.where(competes, LAST, j + window), mask=j < end)
    tl.store(count_ptr + row * blocks + block, tl.sum(competes.to(tl.int32)))


@triton.jit(do_not_specialize=VARYING)
def list_kept(
    table_ptr,
    death_ptr,
    number_ptr,
    kept_ptr,
    counts_ptr,
    earlier_ptr,
    blocks,
    tokens,
    window,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """kept and counts of `Intervals`, from each block's number of kept tokens; earlier: those
    before each block."""
    row, block = program(blocks)
    start, end, _, _, _ = place(table_ptr, block, blocks, tokens, BLOCK)
    earlier = total(number_ptr + row * blocks, 0, block)
    j = start + tl.arange(0, BLOCK)
    death = tl.load(death_ptr + row * tokens + j, mask=j < end, other=0)
    kept = (death > j + window) & (j < end)
    rank = tl.cumsum(kept.to(tl.int32), 0) - 1
    tl.store(kept_ptr + row * tokens + earlier + rank, j, mask=kept)
    tl.store(earlier_ptr + row * blocks + block, earlier)
    segments = (tokens + SEGMENT - 1) // SEGMENT
    counts_at = counts_ptr + row * (segments + 1)
    if block == 0:
        tl.store(counts_at, 0)
    for step in tl.static_range(BLOCK // SEGMENT + 1):
        head = start // SEGMENT + 1 + step
        edge = tl.minimum(head * SEGMENT, tokens)
        number = earlier + tl.sum((kept & (j < edge)).to(tl.int32))
        tl.store(counts_at + head, number, mask=(head <= segments) & (start < edge) & (edge <= end))


@triton.jit(do_not_specialize=VARYING)
def list_slots(
    table_ptr,
    over_ptr,
    death_ptr,
    kept_ptr,
    counts_ptr,
    earlier_ptr,
    held_ptr,
    snapshots_ptr,
    alive_ptr,
    blocks,
    tokens,
    budget,
    length,
    window,
    BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
    SEGMENT: tl.constexpr,
    STEP: tl.constexpr,
):
    """One row of snapshots: those of the tokens held at the head of the run, and of those kept
    since, that are in slots at the head of the segment."""
    row, index = program(blocks * (BLOCK // SEGMENT))
    block = index // (BLOCK // SEGMENT)
    start, end, _, first, _ = place(table_ptr, block, blocks, tokens, BLOCK)
    segments = (tokens + SEGMENT - 1) // SEGMENT
    head = start // SEGMENT + 1 + index % (BLOCK // SEGMENT)
    if index == 0:
        tl.store(alive_ptr + row * segments, 0)
    if (head * SEGMENT > end) | (head >= segments):
        return
    run = block // length
    over = tl.load(over_ptr + row * blocks + block) != 0
    goes_on = over & (first < run * length)
    since = tl.where(goes_on, run * length, first)
    low = tl.load(earlier_ptr + row * blocks + since)
    high = tl.load(counts_ptr + row * (segments + 1) + head)
    limit = head * SEGMENT - 1 + window
    death_at = death_ptr + row * tokens
    row_at = snapshots_ptr + (row * segments + head) * budget
    held_at = held_ptr + (row * tl.cdiv(blocks, length) + run) * SLOTS
    found = 0
    for at in range(0, tl.where(goes_on, budget, 0), STEP):
        found = list_alive(row_at, found, held_at, at, budget, death_at, limit, STEP)
    for at in range(low, high, STEP):
        found = list_alive(row_at, found, kept_ptr + row * tokens, at, high, death_at, limit, STEP)
    tl.store(alive_ptr + row * segments + head, found)


@triton.jit
def list_alive(row_at, found, list_at, at, past, death_at, limit, STEP: tl.constexpr):
    """Append the tokens list[at:at + STEP] that live beyond `limit` to a row; how many it has."""
    index = at + tl.arange(0, STEP)
    j = tl.load(list_at + index, mask=index < past, other=LAST)
    death = tl.load(death_at + j, mask=j < LAST, other=0)
    lives = death > limit
    rank = tl.cumsum(lives.to(tl.int32), 0) - 1
    tl.store(row_at + found + rank, j, mask=lives)
    return found + tl.sum(lives.to(tl.int32))
