"""First launch of a step: what left the window goes to its slot, new tokens enter the rings.

One program per sequence and KV head. Later queries of the same step drop tokens as well, but only
for as long as the step lasts: `death` tells each slot, and each token that leaves the window
during the step, from which query on it is gone.

Slots are compared by one integer: a score's bits in an order that integers share, then the
position, later ones lower. So the lowest is the token to drop, and an empty slot is below all.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait  # type: ignore[import-not-found,import-untyped,unused-ignore]

PINNED = tl.constexpr(2**63 - 1)


@triton.jit
def decode_update(
    k_ptr,
    v_ptr,
    z_ptr,
    position_ptr,
    folded_ptr,
    raw_ptr,
    scored_ptr,
    due_ptr,
    death_ptr,
    new_k_ptr,
    new_v_ptr,
    new_raw_ptr,
    new_z_ptr,
    seen_ptr,
    k_batch,
    k_token,
    k_head,
    v_batch,
    v_token,
    v_head,
    raw_batch,
    raw_token,
    raw_head,
    capacity,
    KV_HEADS: tl.constexpr,
    TOKENS: tl.constexpr,
    PADDED_TOKENS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    PADDED_VALUE_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    RING: tl.constexpr,
    SLOTS: tl.constexpr,
    PADDED_SLOTS: tl.constexpr,
    SINKS: tl.constexpr,
    FLOOR: tl.constexpr,
    RAW_ROWS: tl.constexpr,
    LOOKAHEAD: tl.constexpr,
    PERIOD: tl.constexpr,
    HASHED: tl.constexpr,
    EARLY: tl.constexpr,
):
    """k, v, z, position, folded, raw, scored, due: the state, k and v of capacity + SLOTS entries;
    RING is the capacity, 0 where the ring never comes round. new_*: this step's tokens, (N, T, G,
    channels) with the strides given; new_z (N, T, G) contiguous. death: (N, G, SLOTS + TOKENS - 1).
    """
    if EARLY:
        gdc_wait()  # for what makes the new tokens
        gdc_launch_dependents()  # decode_attend may stand ready; it waits for what is written here
    program = tl.program_id(0).to(tl.int64)
    batch, head = program // KV_HEADS, program % KV_HEADS
    # What depends on nothing is read first, so that its ways to memory and back overlap.
    seen = tl.load(seen_ptr + batch).to(tl.int32)
    index = tl.arange(0, PADDED_TOKENS)
    fresh = index < TOKENS
    new_k_ptr += batch * k_batch + head * k_head
    new_v_ptr += batch * v_batch + head * v_head
    new_k = load_rows(new_k_ptr, index, k_token, fresh, DIM, PADDED_DIM)
    new_v = load_rows(new_v_ptr, index, v_token, fresh, VALUE_DIM, PADDED_VALUE_DIM)
    if RAW_ROWS > 0:
        new_raw_ptr += batch * raw_batch + head * raw_head
        new_raw = load_rows(new_raw_ptr, index, raw_token, fresh, DIM, PADDED_DIM)
        scored = tl.load(scored_ptr + batch)
    if new_z_ptr is not None:
        new_z = tl.load(new_z_ptr + (batch * TOKENS + index) * KV_HEADS + head, mask=fresh)
    k_ptr += program * (capacity + SLOTS) * DIM
    v_ptr += program * (capacity + SLOTS) * VALUE_DIM
    if z_ptr is not None:
        z_ptr += program * (RING + SLOTS)
    if SLOTS > 0:
        position_ptr += program * SLOTS
        folded = tl.load(folded_ptr + program)
        if z_ptr is not None:
            slot = tl.arange(0, PADDED_SLOTS)
            contested = (slot >= SINKS) & (slot < SLOTS)
            z = tl.load(z_ptr + RING + slot, mask=contested, other=0.0)
            position = tl.load(position_ptr + slot, mask=contested, other=0)
            keys = tl.where(contested, ordered(z, position), PINNED)
        for leaver in range(folded, seen - WINDOW + 1):
            entry = leaver % RING
            k = load_row(k_ptr, entry, DIM, PADDED_DIM)
            v = load_row(v_ptr, entry, VALUE_DIM, PADDED_VALUE_DIM)
            target = tl.where(leaver < SINKS, leaver, -1)
            if z_ptr is not None:
                z_leaver = tl.load(z_ptr + entry)
                key = ordered(z_leaver, leaver)
                if leaver >= SINKS:
                    target = place(keys, slot, key, z_leaver > FLOOR)
                    keys = tl.where(slot == target, key, keys)
                tl.store(z_ptr + RING + target, z_leaver, mask=target >= 0)
            store_row(k_ptr, k, RING + target, target >= 0, DIM, PADDED_DIM)
            store_row(v_ptr, v, RING + target, target >= 0, VALUE_DIM, PADDED_VALUE_DIM)
            tl.store(position_ptr + target, leaver, mask=target >= 0)
        # What is written next may stand where a leaver, or `folded`, was read.
        tl.debug_barrier()
        tl.store(folded_ptr + program, tl.maximum(folded, seen - WINDOW + 1))
    entries = (seen + index) % RING if RING > 0 else seen + index
    store_rows(k_ptr, new_k, entries, fresh, DIM, PADDED_DIM)
    store_rows(v_ptr, new_v, entries, fresh, VALUE_DIM, PADDED_VALUE_DIM)
    if RAW_ROWS > 0:
        raw_ptr += program * RAW_ROWS * DIM
        store_rows(raw_ptr, new_raw, (seen + index) % RAW_ROWS, fresh, DIM, PADDED_DIM)
        if head == 0:
            due = seen - LOOKAHEAD - scored >= PERIOD
            tl.store(due_ptr + batch, tl.where(due, scored, -1))
            tl.store(scored_ptr + batch, tl.where(due, scored + PERIOD, scored))
    if HASHED:
        tl.store(z_ptr + entries, hashed(seen + index), mask=fresh)
    if new_z_ptr is not None:
        tl.store(z_ptr + entries, new_z, mask=fresh)
    if (SLOTS > 0) & (TOKENS > 1):
        death_ptr += program * (SLOTS + TOKENS - 1)
        if z_ptr is not None:
            tl.debug_barrier()  # where the window is shorter than the step, new tokens leave too
            foresee(
                keys, slot, z_ptr, death_ptr, seen,
                TOKENS, PADDED_TOKENS, WINDOW, RING, SLOTS, PADDED_SLOTS, SINKS, FLOOR,
            )  # fmt: skip
        else:
            foresee_sinks(death_ptr, seen, TOKENS, PADDED_TOKENS, WINDOW, SLOTS, SINKS)


@triton.jit
def foresee(
    keys,
    slot,
    z_ptr,
    death_ptr,
    seen,
    TOKENS: tl.constexpr,
    PADDED_TOKENS: tl.constexpr,
    WINDOW: tl.constexpr,
    RING: tl.constexpr,
    SLOTS: tl.constexpr,
    PADDED_SLOTS: tl.constexpr,
    SINKS: tl.constexpr,
    FLOOR: tl.constexpr,
):
    """Deaths within the step: TOKENS for what outlives it. Token seen + a - WINDOW leaves at query
    a >= 1, and stands at SLOTS + a - 1; `guest` says which of those took a slot meanwhile."""
    late = tl.arange(0, PADDED_TOKENS)
    death = tl.full([PADDED_SLOTS], TOKENS, tl.int32)
    late_death = tl.zeros([PADDED_TOKENS], tl.int32)
    guest = tl.zeros([PADDED_SLOTS], tl.int32)
    for a in range(1, TOKENS):
        leaver = seen + a - WINDOW
        stays = (leaver >= 0) & (leaver < SINKS)
        if leaver >= SINKS:
            z_leaver = tl.load(z_ptr + leaver % RING)
            key = ordered(z_leaver, leaver)
            target = place(keys, slot, key, z_leaver > FLOOR)
            taken = slot == target
            loser = tl.sum(tl.where(taken, guest, 0), 0)
            death = tl.where(taken & (guest == 0), a, death)
            late_death = tl.where(late + 1 == loser, a, late_death)
            guest = tl.where(taken, a, guest)
            keys = tl.where(taken, key, keys)
            stays = target >= 0
        late_death = tl.where(late == tl.where(stays, a - 1, -1), TOKENS, late_death)
    tl.store(death_ptr + slot, death, mask=slot < SLOTS)
    tl.store(death_ptr + SLOTS + late, late_death, mask=late < TOKENS - 1)


@triton.jit
def foresee_sinks(
    death_ptr,
    seen,
    TOKENS: tl.constexpr,
    PADDED_TOKENS: tl.constexpr,
    WINDOW: tl.constexpr,
    SLOTS: tl.constexpr,
    SINKS: tl.constexpr,
):
    """`foresee` where nothing but sinks stays."""
    late = tl.arange(0, PADDED_TOKENS)
    leaver = seen + late + 1 - WINDOW
    stays = (leaver >= 0) & (leaver < SINKS)
    tl.store(death_ptr + SLOTS + late, tl.where(stays, TOKENS, 0), mask=late < TOKENS - 1)
    for slot in range(SLOTS):
        tl.store(death_ptr + slot, TOKENS)


@triton.jit
def place(keys, slot, key, candidate):
    """The slot that a token takes: that of the lowest key, if its own is higher; -1 if none."""
    lowest = tl.min(keys, 0)
    loser = tl.min(tl.where(keys == lowest, slot, keys.shape[0]), 0)
    return tl.where(candidate & (key > lowest), loser, -1)


@triton.jit
def ordered(z, position):
    """int64 that sort as scores do, and of equal scores the later position lower."""
    bits = (z + 0.0).to(tl.int32, bitcast=True)  # + 0.0: the two zeros are equal
    monotone = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    return (monotone << 32) + tl.cast(0x7FFFFFFF - position, tl.int64)


@triton.jit
def hashed(position):
    """As dense.hashed: a number below 2^24 for each position."""
    x = position.to(tl.uint32)
    for _ in tl.static_range(2):
        x = (x ^ (x >> 16)) * 0x45D9F3B
    return ((x ^ (x >> 16)) >> 8).to(tl.float32)


@triton.jit
def load_row(at, row, DIM: tl.constexpr, PADDED: tl.constexpr):
    channel = tl.arange(0, PADDED)
    return tl.load(at + row * DIM + channel, mask=channel < DIM, other=0.0)


@triton.jit
def store_row(at, value, row, wanted, DIM: tl.constexpr, PADDED: tl.constexpr):
    channel = tl.arange(0, PADDED)
    tl.store(at + row * DIM + channel, value, mask=(channel < DIM) & wanted)


@triton.jit
def load_rows(at, index, stride, fresh, DIM: tl.constexpr, PADDED: tl.constexpr):
    """The new tokens' rows: (PADDED_TOKENS, PADDED)."""
    channel = tl.arange(0, PADDED)
    inside = fresh[:, None] & (channel < DIM)[None, :]
    source = at + index[:, None].to(tl.int64) * stride + channel[None, :]
    return tl.load(source, mask=inside, other=0.0)


@triton.jit
def store_rows(at, value, entries, fresh, DIM: tl.constexpr, PADDED: tl.constexpr):
    channel = tl.arange(0, PADDED)
    inside = fresh[:, None] & (channel < DIM)[None, :]
    tl.store(at + entries[:, None].to(tl.int64) * DIM + channel[None, :], value, mask=inside)


@triton.jit
def decode_norms(
    raw_ptr,
    z_ptr,
    raw_batch,
    raw_token,
    raw_head,
    tokens,
    rows,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """z (N, T, G) = -|raw_k|, the same bits in a prefill and in steps: rows are summed alone."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    head, token = row % KV_HEADS, row // KV_HEADS
    at = (token // tokens).to(tl.int64) * raw_batch + (token % tokens).to(tl.int64) * raw_token
    at += head.to(tl.int64) * raw_head
    channel = tl.arange(0, PADDED_DIM)
    inside = live[:, None] & (channel < DIM)[None, :]
    x = tl.load(raw_ptr + at[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(z_ptr + row, -tl.sqrt_rn(tl.sum(x * x, 1)), mask=live)
