"""Second launch of a step: attention of the new tokens over the cache, cut into splits.

A program takes a share of a KV head's entries and all rows, new tokens times query heads, that
read them. With several splits, the program that finishes last adds up what all have left, in the
order of the splits, so that the result does not depend on who was last.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.language.extra.cuda import gdc_wait  # type: ignore[import-not-found,import-untyped,unused-ignore]

LOG2_E = tl.constexpr(1.4426950408889634)
UNSEEN = tl.constexpr(-1.0e30)  # finite: a row that sees nothing has no inf - inf


@triton.jit
def decode_attend(
    q_ptr,
    k_ptr,
    v_ptr,
    position_ptr,
    death_ptr,
    seen_ptr,
    sink_logits_ptr,
    slopes_ptr,
    o_ptr,
    partial_ptr,
    stats_ptr,
    arrivals_ptr,
    q_batch,
    q_token,
    q_head,
    capacity,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    ROW_BLOCKS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PADDED_VALUE_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    RING: tl.constexpr,
    RATE: tl.constexpr,
    STRIDED: tl.constexpr,
    SINKS: tl.constexpr,
    SLOTS: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SPLITS: tl.constexpr,
    TOGETHER: tl.constexpr,
    LIVE_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """q (N, T, H, DIM) by strides; k, v, position, arrivals: the state, k and v of capacity + SLOTS
    entries; death: of decode_update, where there are several tokens; RING: the capacity, 0 where
    the ring never comes round. o (N, T, H, VALUE_DIM); float32 and for several splits alone,
    partial (N * G * row blocks, SPLITS, ROWS, PADDED_VALUE_DIM) and stats (the same, 2, ROWS)."""
    split = tl.program_id(0)
    program = tl.program_id(1).to(tl.int64)
    row_block = tl.program_id(2)
    batch, kv_head = program // KV_HEADS, program % KV_HEADS
    seen = tl.load(seen_ptr + batch).to(tl.int32)
    newest = seen + TOKENS - 1
    row = row_block * ROWS + tl.arange(0, ROWS)
    live = row < TOKENS * GROUP
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    channel = tl.arange(0, PADDED_DIM)
    value_channel = tl.arange(0, PADDED_VALUE_DIM)
    q_at = q_ptr + batch * q_batch + token.to(tl.int64) * q_token + head * q_head
    q_inside = live[:, None] & (channel < DIM)[None, :]
    q = tl.load(q_at[:, None] + channel[None, :], mask=q_inside, other=0.0)

    peak = tl.full([ROWS], UNSEEN, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_VALUE_DIM], tl.float32)
    if sink_logits_ptr is not None:
        joins = live & (split == 0)
        logit = tl.load(sink_logits_ptr + head, mask=joins, other=0.0).to(tl.float32)
        peak, total = tl.where(joins, logit * LOG2_E, peak), tl.where(joins, 1.0, total)
    if slopes_ptr is not None:
        slope = tl.load(slopes_ptr + head, mask=live, other=0.0) * LOG2_E
    if EARLY:
        gdc_wait()  # for decode_update, beside which this program was started

    entries = tl.cast(capacity + SLOTS, tl.int64)
    k_ptr += program * entries * DIM
    v_ptr += program * entries * VALUE_DIM
    # Entries that may hold a token: of the ring those written so far, of the slots all or none.
    in_ring = tl.minimum(newest + 1, capacity)
    filled = in_ring
    if SLOTS > 0:
        position_ptr += program * SLOTS
        if TOKENS > 1:
            death_ptr += program * (SLOTS + TOKENS - 1)
        filled += tl.where(newest >= WINDOW, SLOTS, 0)
    share = tl.cdiv(tl.cdiv(filled, SPLITS), 16) * 16
    first = split * share
    last = tl.minimum(first + share, filled)
    for start in range(first, last, BLOCK):
        x = start + tl.arange(0, BLOCK)
        inside = x < last
        visible, distance = sight(
            x[None, :], inside[None, :], in_ring, seen, token[:, None], position_ptr, death_ptr,
            TOKENS, WINDOW, RING, RATE, STRIDED, SINKS, SLOTS,
        )  # fmt: skip
        entry = tl.where(x < in_ring, x, x - in_ring + capacity) if SLOTS > 0 else x
        k_inside = inside[:, None] & (channel < DIM)[None, :]
        k_at = k_ptr + entry.to(tl.int64)[:, None] * DIM + channel[None, :]
        k = tl.load(k_at, mask=k_inside, other=0.0)
        v_inside = inside[:, None] & (value_channel < VALUE_DIM)[None, :]
        v_at = v_ptr + entry.to(tl.int64)[:, None] * VALUE_DIM + value_channel[None, :]
        v = tl.load(v_at, mask=v_inside, other=0.0)
        s = tl.dot(q, k.T, input_precision=PRECISION) * SCALE
        if SOFTCAP > 0:
            s = SOFTCAP * (2.0 * tl.sigmoid(s * (2.0 / SOFTCAP)) - 1.0)
        s *= LOG2_E
        if slopes_ptr is not None:
            s -= slope[:, None] * distance.to(tl.float32)
        s = tl.where(visible, s, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - new_peak[:, None])
        fade = tl.exp2(peak - new_peak)
        total = total * fade + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None], input_precision=PRECISION)
        peak = new_peak

    o_ptr += batch * TOKENS * KV_HEADS * GROUP * VALUE_DIM
    out_inside = live[:, None] & (value_channel < VALUE_DIM)[None, :]
    if SPLITS == 1:
        o_at = o_ptr + (token * KV_HEADS * GROUP + head)[:, None] * VALUE_DIM + value_channel
        tl.store(o_at, (acc / total[:, None]).to(o_ptr.dtype.element_ty), mask=out_inside)
    else:
        line = tl.arange(0, ROWS)
        tile = (program * tl.num_programs(2) + row_block) * SPLITS
        partial_ptr += tile * ROWS * PADDED_VALUE_DIM
        stats_ptr += tile * ROWS * 2
        own = partial_ptr + (split * ROWS + line)[:, None] * PADDED_VALUE_DIM + value_channel
        tl.store(own, acc, mask=out_inside)
        tl.store(stats_ptr + split * ROWS * 2 + line, peak, mask=live)
        tl.store(stats_ptr + split * ROWS * 2 + ROWS + line, total, mask=live)
        # All of a program's stores come before its count, and the count before the others' loads.
        tl.debug_barrier()
        counter = arrivals_ptr + program * ROW_BLOCKS + row_block
        if tl.atomic_add(counter, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(counter, 0)
            add_up(
                partial_ptr, stats_ptr, o_ptr, row_block, kv_head,
                KV_HEADS, GROUP, TOKENS, ROWS, LIVE_ROWS, VALUE_DIM, PADDED_VALUE_DIM,
                SPLITS, TOGETHER,
            )  # fmt: skip


@triton.jit
def sight(
    x,
    inside,
    in_ring,
    seen,
    token,
    position_ptr,
    death_ptr,
    TOKENS: tl.constexpr,
    WINDOW: tl.constexpr,
    RING: tl.constexpr,
    RATE: tl.constexpr,
    STRIDED: tl.constexpr,
    SINKS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Which entries x each row sees, and how far back they are: of the shape that x and token
    broadcast to."""
    newest = seen + TOKENS - 1
    # A ring's entry is as good as the latest position that may stand there: what stood there
    # before is beyond the window. Where RING is 0 the ring never comes round.
    j = newest - (newest - x) % RING if RING > 0 else x
    if SLOTS > 0:
        in_slot = x >= in_ring
        slot = x - in_ring
        j = tl.where(in_slot, tl.load(position_ptr + slot, mask=in_slot & inside, other=-1), j)
    distance = seen + token - j
    past = (distance >= 0) & inside & (j >= 0)
    visible = past
    if WINDOW > 0:
        visible &= distance < WINDOW
    if RATE > 1:
        visible &= (distance % RATE == 0) | (j < SINKS)
    if STRIDED > 0:
        visible |= past & (distance % STRIDED == 0)
    if SLOTS > 0:
        visible |= past & in_slot
        if TOKENS > 1:
            # In slots some die while the step lasts; of the ring some outlive the window.
            late = j - (seen - WINDOW + 1)
            leaves = (late >= 0) & (late < TOKENS - 1) & (x < in_ring) & (j >= 0)
            death_at = death_ptr + tl.where(in_slot, slot, SLOTS + late)
            death = tl.load(death_at, mask=(in_slot | leaves) & inside, other=0)
            alive = past & (token < death)
            visible = tl.where(in_slot, alive, visible | alive)
    elif SINKS > 0:
        visible |= past & (j < SINKS)
    return visible, distance


@triton.jit
def add_up(
    partial_ptr,
    stats_ptr,
    o_ptr,
    row_block,
    kv_head,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    LIVE_ROWS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PADDED_VALUE_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """The softmax over what all splits saw; of a tile's rows, LIVE_ROWS may be no padding.

    What other programs wrote is read from L2, past this multiprocessor's own cache; the loads of
    TOGETHER splits are under way at a time.
    """
    line = tl.arange(0, LIVE_ROWS)
    row = row_block * ROWS + line
    live = row < TOKENS * GROUP
    channel = tl.arange(0, PADDED_VALUE_DIM)
    inside = live[:, None] & (channel < VALUE_DIM)[None, :]
    partial_at = partial_ptr + line[:, None] * PADDED_VALUE_DIM + channel
    peak = tl.full([LIVE_ROWS], UNSEEN, tl.float32)
    total = tl.zeros([LIVE_ROWS], tl.float32)
    acc = tl.zeros([LIVE_ROWS, PADDED_VALUE_DIM], tl.float32)
    for splits in range(0, SPLITS, TOGETHER):
        for index in tl.static_range(TOGETHER):
            split = splits + index
            there = live & (split < SPLITS)
            at = stats_ptr + split * ROWS * 2 + line
            their_peak = tl.load(at, mask=there, other=UNSEEN, cache_modifier=".cg")
            their_total = tl.load(at + ROWS, mask=there, other=0.0, cache_modifier=".cg")
            theirs = tl.load(
                partial_at + split * ROWS * PADDED_VALUE_DIM,
                mask=inside & (split < SPLITS), other=0.0, cache_modifier=".cg",
            )  # fmt: skip
            new_peak = tl.maximum(peak, their_peak)
            fade, gain = tl.exp2(peak - new_peak), tl.exp2(their_peak - new_peak)
            total = total * fade + their_total * gain
            acc = acc * fade[:, None] + theirs * gain[:, None]
            peak = new_peak
    out = (row // GROUP * KV_HEADS + kv_head) * GROUP + row % GROUP
    o_at = o_ptr + out[:, None] * VALUE_DIM + channel
    tl.store(o_at, (acc / total[:, None]).to(o_ptr.dtype.element_ty), mask=inside)
