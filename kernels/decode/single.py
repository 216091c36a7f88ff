"""Attention of one new token over the cache where each KV head serves one query head.

Then a program has one row, and products of matrices would be fifteen sixteenths padding. Here each
entry's score is a sum over channels, and BLOCK softmaxes run side by side, one for every entry of
a turn, to be put together at the end: no turn waits for another thread. Beyond one split the
program that finishes last adds up, as in attend.py.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait  # type: ignore[import-not-found,import-untyped,unused-ignore]

from .attend import LOG2_E, UNSEEN, add_up, sight


@triton.jit
def decode_attend_single(
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
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Arguments as those of decode_attend with one row, GROUP = TOKENS = 1; no deaths are asked."""
    if EARLY:
        gdc_launch_dependents()
    split = tl.program_id(0)
    program = tl.program_id(1).to(tl.int64)
    batch, head = program // KV_HEADS, program % KV_HEADS
    seen = tl.load(seen_ptr + batch).to(tl.int32)
    channel = tl.arange(0, PADDED_DIM)
    value_channel = tl.arange(0, PADDED_VALUE_DIM)
    q_at = q_ptr + batch * q_batch + head * q_head + channel
    q = tl.load(q_at, mask=channel < DIM, other=0.0).to(tl.float32) * SCALE
    # Entries that may hold a token: of the ring those written so far, of the slots all or none.
    in_ring = tl.minimum(seen + 1, capacity)
    filled = in_ring
    if SLOTS > 0:
        position_ptr += program * SLOTS
        filled += tl.where(seen >= WINDOW, SLOTS, 0)
    share = tl.cdiv(tl.cdiv(filled, SPLITS), 16) * 16
    first = split * share
    last = tl.minimum(first + share, filled)
    entries = tl.cast(capacity + SLOTS, tl.int64)
    k_ptr += program * entries * DIM
    v_ptr += program * entries * VALUE_DIM
    if EARLY:
        called = tl.minimum(first + tl.arange(0, BLOCK), filled - 1)
        called = tl.where(called < in_ring, called, called - in_ring + capacity).to(tl.int64)
        call(k_ptr + called * DIM, DIM, PADDED_DIM)
        call(v_ptr + called * VALUE_DIM, VALUE_DIM, PADDED_VALUE_DIM)
        gdc_wait()  # for decode_update, beside which this program was started

    peak = tl.full([BLOCK], UNSEEN, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    acc = tl.zeros([BLOCK, PADDED_VALUE_DIM], tl.float32)
    for start in tl.range(first, last, BLOCK, num_stages=STAGES):
        x = start + tl.arange(0, BLOCK)
        inside = x < last
        visible, distance = sight(
            x, inside, in_ring, seen, 0, position_ptr, None,
            1, WINDOW, RING, RATE, STRIDED, SINKS, SLOTS,
        )  # fmt: skip
        entry = tl.where(x < in_ring, x, x - in_ring + capacity) if SLOTS > 0 else x
        k_at = k_ptr + entry.to(tl.int64)[:, None] * DIM + channel[None, :]
        k = tl.load(k_at, mask=inside[:, None] & (channel < DIM)[None, :], other=0.0)
        v_at = v_ptr + entry.to(tl.int64)[:, None] * VALUE_DIM + value_channel[None, :]
        v_inside = inside[:, None] & (value_channel < VALUE_DIM)[None, :]
        v = tl.load(v_at, mask=v_inside, other=0.0)
        s = tl.sum(k.to(tl.float32) * q[None, :], 1)
        if SOFTCAP > 0:
            s = SOFTCAP * (2.0 * tl.sigmoid(s * (2.0 / SOFTCAP)) - 1.0)
        s *= LOG2_E
        if slopes_ptr is not None:
            s -= tl.load(slopes_ptr + head) * LOG2_E * distance.to(tl.float32)
        s = tl.where(visible, s, float("-inf"))
        new_peak = tl.maximum(peak, s)
        p, fade = tl.exp2(s - new_peak), tl.exp2(peak - new_peak)
        total = total * fade + p
        acc = acc * fade[:, None] + p[:, None] * v.to(tl.float32)
        peak = new_peak
    top = tl.max(peak, 0)
    if sink_logits_ptr is not None:
        logit = tl.load(sink_logits_ptr + head).to(tl.float32) * LOG2_E
        logit = tl.where(split == 0, logit, UNSEEN)
        top = tl.maximum(top, logit)
    gain = tl.exp2(peak - top)
    whole = tl.sum(total * gain, 0)
    if sink_logits_ptr is not None:
        whole += tl.exp2(logit - top)
    out = tl.sum(acc * gain[:, None], 0)

    o_ptr += batch * KV_HEADS * VALUE_DIM
    if SPLITS == 1:
        o_at = o_ptr + head * VALUE_DIM + value_channel
        tl.store(o_at, (out / whole).to(o_ptr.dtype.element_ty), mask=value_channel < VALUE_DIM)
    else:
        partial_ptr += program * SPLITS * PADDED_VALUE_DIM
        stats_ptr += program * SPLITS * 2
        tl.store(partial_ptr + split * PADDED_VALUE_DIM + value_channel, out)
        tl.store(stats_ptr + split * 2, top)
        tl.store(stats_ptr + split * 2 + 1, whole)
        # All of a program's stores come before its count, and the count before the others' loads.
        tl.debug_barrier()
        counter = arrivals_ptr + program * ROW_BLOCKS
        if tl.atomic_add(counter, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(counter, 0)
            add_up(
                partial_ptr, stats_ptr, o_ptr, 0, head,
                KV_HEADS, 1, 1, 1, 1, VALUE_DIM, PADDED_VALUE_DIM, SPLITS, TOGETHER,
            )  # fmt: skip


@triton.jit
def call(row_at, DIM: tl.constexpr, PADDED: tl.constexpr):
    """Have the L2 cache fetch the first turn's rows while decode_update runs: it may change two of
    them, in that cache. A line is 128 bytes."""
    SIZE: tl.constexpr = row_at.dtype.element_ty.primitive_bitwidth // 8
    LINES: tl.constexpr = (PADDED * SIZE + 127) // 128
    line = tl.minimum(tl.arange(0, LINES) * (128 // SIZE), DIM - 1)
    at = row_at[:, None] + line[None, :]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at.to(tl.int64)],
        dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip
