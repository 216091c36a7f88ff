"""Filling a state after a prefill: one launch lists what goes into slots, one copies all rows.

A program of either belongs to one sequence and one KV head. Columns count the tokens of a row of
the call's axis: row `batch`, columns `begin` to `end`, are the sequence; the last one is its newest
token. Without edges every sequence is a whole row, else all lie in row 0, end to end.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit
def decode_list(
    positions_ptr,
    death_ptr,
    next_ptr,
    edges_ptr,
    source_ptr,
    position_ptr,
    folded_ptr,
    columns,
    positions_batch,
    positions_head,
    positions_column,
    death_batch,
    death_head,
    death_column,
    KV_HEADS: tl.constexpr,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
    SLOTS: tl.constexpr,
    PADDED_SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """source: (N, G, SLOTS), the column of the token in each slot, -1 where it is empty: sinks at
    their positions, then those that are still kept, in order. position, folded: of the state.

    positions: of the tokens, negative where there is none; None where columns count them. death:
    the first column of a query that no longer sees a token; None where nothing evicts.
    """
    program = tl.program_id(0).to(tl.int64)
    batch, head = program // KV_HEADS, program % KV_HEADS
    row, begin, end = edges(edges_ptr, batch, columns)
    left = tl.maximum(tl.load(next_ptr + batch).to(tl.int64) - WINDOW, 0)
    source_ptr += program * SLOTS
    position_ptr += program * SLOTS
    slot = tl.arange(0, PADDED_SLOTS)
    tl.store(source_ptr + slot, -1, mask=slot < SLOTS)
    tl.store(position_ptr + slot, -1, mask=slot < SLOTS)
    tl.store(folded_ptr + program, left)
    tl.debug_barrier()  # other threads write the same slots below
    newest = end - 1
    if death_ptr is None and positions_ptr is None:
        end = tl.minimum(end, begin + SINKS)
    count = tl.zeros([], tl.int64)
    for first in range(begin, end, BLOCK):
        column = first + tl.arange(0, BLOCK).to(tl.int64)
        live = column < end
        if positions_ptr is None:
            position = column - begin
        else:
            at = row * positions_batch + head * positions_head + column * positions_column
            position = tl.load(positions_ptr + at, mask=live, other=-1).to(tl.int64)
        outside = live & (position >= 0) & (position < left)
        sink = outside & (position < SINKS)
        target = tl.where(sink, position, -1)
        if death_ptr is not None:
            at = row * death_batch + head * death_head + column * death_column
            death = tl.load(death_ptr + at, mask=live, other=0)
            kept = (outside & (position >= SINKS) & (death > newest)).to(tl.int64)
            target = tl.where(kept > 0, SINKS + count + tl.cumsum(kept, 0) - kept, target)
            count += tl.sum(kept, 0)
        put = (target >= 0) & (target < SLOTS)
        tl.store(source_ptr + target, column, mask=put)
        tl.store(position_ptr + target, position, mask=put)


@triton.jit
def decode_fill(
    k_ptr,
    v_ptr,
    z_ptr,
    raw_ptr,
    source_ptr,
    next_ptr,
    edges_ptr,
    state_k_ptr,
    state_v_ptr,
    state_z_ptr,
    state_raw_ptr,
    scored_ptr,
    k_batch,
    k_column,
    k_head,
    v_batch,
    v_column,
    v_head,
    z_batch,
    z_head,
    z_column,
    raw_batch,
    raw_column,
    raw_head,
    columns,
    ring,
    entries,
    blocks,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PADDED_VALUE_DIM: tl.constexpr,
    SLOTS: tl.constexpr,
    RAW_ROWS: tl.constexpr,
    LOOKAHEAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The first `entries` of k and v, `ring` of them by position and then the slots, with their z;
    and the scorer's rows, by the programs after the first `blocks`. An entry that gets no token
    holds zeros, and a z of -inf."""
    program = tl.program_id(0).to(tl.int64)
    batch, head = program // KV_HEADS, program % KV_HEADS
    row, begin, end = edges(edges_ptr, batch, columns)
    newest = tl.load(next_ptr + batch).to(tl.int64) - 1
    block = tl.program_id(1)
    if block < blocks:
        entry = block * ROWS + tl.arange(0, ROWS).to(tl.int64)
        live = entry < entries
        column, found = of_ring(entry, ring, newest, begin, end)
        if SLOTS > 0:
            in_slot = live & (entry >= ring)
            at = source_ptr + program * SLOTS + entry - ring
            held = tl.load(at, mask=in_slot, other=-1).to(tl.int64)
            column = tl.where(in_slot, held, column)
            found = tl.where(in_slot, held >= 0, found)
        found = found & live
        entry += program * (ring + SLOTS)
        k_at = k_ptr + row * k_batch + head * k_head + column * k_column
        copy(k_at, found, state_k_ptr + entry * DIM, live, DIM, PADDED_DIM)
        v_at = v_ptr + row * v_batch + head * v_head + column * v_column
        copy(v_at, found, state_v_ptr + entry * VALUE_DIM, live, VALUE_DIM, PADDED_VALUE_DIM)
        if z_ptr is not None:
            z_at = z_ptr + row * z_batch + head * z_head + column * z_column
            z = tl.load(z_at, mask=found, other=float("-inf"))
            tl.store(state_z_ptr + entry, z, mask=live)
    elif RAW_ROWS > 0:
        entry = (block - blocks) * ROWS + tl.arange(0, ROWS).to(tl.int64)
        live = entry < RAW_ROWS
        column, found = of_ring(entry, RAW_ROWS, newest, begin, end)
        raw_at = raw_ptr + row * raw_batch + head * raw_head + column * raw_column
        entry += program * RAW_ROWS
        copy(raw_at, found & live, state_raw_ptr + entry * DIM, live, DIM, PADDED_DIM)
        tl.store(scored_ptr + batch, tl.maximum(newest + 1 - LOOKAHEAD, 0))


@triton.jit
def edges(edges_ptr, batch, columns):
    """Row of the axis, its first column of a sequence, and the one after its last."""
    if edges_ptr is None:
        row, begin, end = batch, batch * 0, batch * 0 + columns
    else:
        row, begin = batch * 0, tl.load(edges_ptr + batch).to(tl.int64)
        end = tl.load(edges_ptr + batch + 1).to(tl.int64)
    return row, begin, end


@triton.jit
def of_ring(entry, ring, newest, begin, end):
    """The column whose token stands in an entry of a ring, and whether there is one."""
    back = (newest % ring - entry + ring) % ring  # how long before the newest token
    column = end - 1 - back
    return column, (entry < ring) & (back <= newest) & (column >= begin)


@triton.jit
def copy(from_ptr, found, to_ptr, live, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows of WIDTH channels, zeros where not found."""
    channel = tl.arange(0, PADDED)[None, :]
    inside = channel < WIDTH
    x = tl.load(from_ptr[:, None] + channel, mask=found[:, None] & inside, other=0)
    tl.store(to_ptr[:, None] + channel, x, mask=live[:, None] & inside)
