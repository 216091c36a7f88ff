"""A decoding step of a recurrence layer in one launch: a program per sequence and value head.

What a state holds lags behind where the last step brought several tokens: these can be taken back,
so S still stands before them, `committed` says how many tokens it has seen, and the next step goes
through those that stayed first, from their inputs in the rings. A step of one token leaves S after
it. Entries of a ring that are read are never written in the same step, so programs that share a
head of q and k need not wait for each other.

Shapes: N sequences, T new tokens, A value heads; rows of q, k, v, a, b (N, T, channels) and gate
(N, T, A * VALUE) with gaps; rings (N, RING, channels) contiguous; S (N, A, KEY, VALUE), z
(N, A, KEY), committed (N, A); weights of the convolution (channels of q, k, v, CONV).
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment, misc"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.language.extra.cuda import gdc_wait  # type: ignore[import-not-found,import-untyped,unused-ignore]

UNIT = tl.constexpr(1e-6)
"""Added to the sum of squares of a head."""
TINY = tl.constexpr(1e-10)
"""Added to z . q."""


@triton.jit
def recurrence_step(
    q_ptr,
    k_ptr,
    v_ptr,
    a_ptr,
    b_ptr,
    gate_ptr,
    q_ring_ptr,
    k_ring_ptr,
    v_ring_ptr,
    a_ring_ptr,
    b_ring_ptr,
    S_ptr,
    z_ptr,
    committed_ptr,
    seen_ptr,
    conv_ptr,
    decay_ptr,
    bias_ptr,
    skip_ptr,
    norm_ptr,
    out_ptr,
    q_batch,
    q_token,
    k_batch,
    k_token,
    v_batch,
    v_token,
    a_batch,
    a_token,
    b_batch,
    b_token,
    gate_batch,
    gate_token,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    PADDED_KEY: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCKS_V: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    RING: tl.constexpr,
    CONV: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NORM: tl.constexpr,
    VALUE_ACTIVATION: tl.constexpr,
    DECAY: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    STEP: tl.constexpr,
    STEP_SCALE: tl.constexpr,
    DELTA: tl.constexpr,
    COMPLEMENT: tl.constexpr,
    OUTPUT: tl.constexpr,
    EPS: tl.constexpr,
    SCALE: tl.constexpr,
    EARLY: tl.constexpr,
):
    """out (N, T, A, VALUE) contiguous; the state moves on in place. decay_ptr: the log of the fixed
    decay, or A_log; TOKENS may be 0: then S only catches up."""
    value_head = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    head, row = value_head // GROUP, batch * HEADS * GROUP + value_head
    first = value_head % GROUP == 0  # of those that share a head: it alone writes their rings
    key = tl.arange(0, PADDED_KEY)
    keyed = key < KEY
    S_ptr += row * KEY * VALUE
    first_block = load_block(S_ptr, 0, key, keyed, VALUE, BLOCK_V)  # on its way meanwhile
    if EARLY:
        gdc_wait()
    seen = tl.load(seen_ptr + batch)
    start = (tl.load(committed_ptr + row) - seen).to(tl.int32)
    q_at = (q_ptr + batch * q_batch + head * KEY + key, q_token)
    q_ring = ring_of(q_ring_ptr, batch, HEADS * KEY, head * KEY + key, RING)
    k_at = (k_ptr + batch * k_batch + head * KEY + key, k_token)
    k_ring = ring_of(k_ring_ptr, batch, HEADS * KEY, head * KEY + key, RING)
    q_taps = load_taps(conv_ptr, head * KEY + key, keyed, CONV)
    if COMPLEMENT:
        k_taps = ()
    else:
        k_taps = load_taps(conv_ptr, (HEADS + head) * KEY + key, keyed, CONV)
    if DECAY == "softplus" or DECAY == "sigmoid":
        a_at = (a_ptr + batch * a_batch + head * KEY + key, a_token)
        a_ring = ring_of(a_ring_ptr, batch, HEADS * KEY, head * KEY + key, RING)
    elif DECAY == "scalar":
        a_at = (a_ptr + batch * a_batch + value_head, a_token)
        a_ring = ring_of(a_ring_ptr, batch, HEADS * GROUP, value_head, RING)
    else:
        a_at, a_ring = (q_ptr, 0), (q_ptr, 0)
    b_at, b_ring = (q_ptr, 0), (q_ptr, 0)
    if STEP == "sigmoid":
        b_at = (b_ptr + batch * b_batch + value_head, b_token)
        b_ring = ring_of(b_ring_ptr, batch, HEADS * GROUP, value_head, RING)
    rate, bias = load_decay(decay_ptr, bias_ptr, value_head, head, key, keyed, KEY, DECAY)

    if TOKENS == 1:  # the same for all channels of v
        decay_1, step_1, k_1 = key_side(
            a_at, a_ring, b_at, b_ring, k_at, k_ring, k_taps, rate, bias, 0, seen, keyed,
            False, RING, CONV, ACTIVATION, NORM, DECAY, TEMPERATURE, STEP, STEP_SCALE,
            COMPLEMENT,
        )  # fmt: skip
        q_1 = convolved(q_at, q_ring, q_taps, 0, seen, keyed, False, RING, CONV)
        q_1 = normed(activated(q_1, ACTIVATION), keyed, NORM) * SCALE
    outs = ()
    for block in tl.static_range(BLOCKS_V):
        value = block * BLOCK_V + tl.arange(0, BLOCK_V)
        valued = value < VALUE
        at = S_ptr + key[:, None] * VALUE + value[None, :]
        inside = keyed[:, None] & valued[None, :]
        S = first_block
        if block > 0:
            S = load_block(S_ptr, block, key, keyed, VALUE, BLOCK_V)
        z = tl.zeros([PADDED_KEY], tl.float32)
        if z_ptr is not None:
            z += tl.load(z_ptr + row * KEY + key, mask=keyed, other=0).to(tl.float32)
        v_at = (v_ptr + batch * v_batch + value_head * VALUE + value, v_token)
        v_ring = ring_of(v_ring_ptr, batch, HEADS * GROUP * VALUE, value_head * VALUE + value, RING)
        v_first = (2 - COMPLEMENT) * HEADS * KEY + value_head * VALUE
        v_taps = load_taps(conv_ptr, v_first + value, valued, CONV)
        for t in range(start, 0):
            decay, step, k = key_side(
                a_at, a_ring, b_at, b_ring, k_at, k_ring, k_taps, rate, bias, t, seen, keyed,
                True, RING, CONV, ACTIVATION, NORM, DECAY, TEMPERATURE, STEP, STEP_SCALE,
                COMPLEMENT,
            )  # fmt: skip
            v = convolved(v_at, v_ring, v_taps, t, seen, valued, True, RING, CONV)
            v = activated(v, VALUE_ACTIVATION)
            S, z = moved(S, z, decay, step, k, v, DECAY, DELTA)
        if TOKENS != 1:
            behind = start < 0
            if behind:
                tl.store(at, S, mask=inside)
                if z_ptr is not None and block == BLOCKS_V - 1:
                    tl.store(z_ptr + row * KEY + key, z, mask=keyed)
        o = tl.zeros([ROWS, BLOCK_V], tl.float32)
        for t in range(TOKENS):
            if TOKENS == 1:
                decay, step, k, q = decay_1, step_1, k_1, q_1
            else:
                decay, step, k = key_side(
                    a_at, a_ring, b_at, b_ring, k_at, k_ring, k_taps, rate, bias, t, seen, keyed,
                    False, RING, CONV, ACTIVATION, NORM, DECAY, TEMPERATURE, STEP, STEP_SCALE,
                    COMPLEMENT,
                )  # fmt: skip
                q = convolved(q_at, q_ring, q_taps, t, seen, keyed, False, RING, CONV)
                q = normed(activated(q, ACTIVATION), keyed, NORM) * SCALE
            v = convolved(v_at, v_ring, v_taps, t, seen, valued, False, RING, CONV)
            v = activated(v, VALUE_ACTIVATION)
            S, z = moved(S, z, decay, step, k, v, DECAY, DELTA)
            read = tl.sum(S * q[:, None], 0)
            if z_ptr is not None:
                read /= tl.sum(z * q, 0) + TINY
            if skip_ptr is not None:
                read += tl.load(skip_ptr + value_head).to(tl.float32) * v
            o = tl.where(tl.arange(0, ROWS)[:, None] == t, read[None, :], o)
            keep(v_at, v_ring, t, seen, valued, RING)
            if block == BLOCKS_V - 1:
                if q_ring_ptr is not None:
                    keep(q_at, q_ring, t, seen, keyed & first, RING)
                if not COMPLEMENT:
                    keep(k_at, k_ring, t, seen, keyed & first, RING)
                if DECAY == "softplus" or DECAY == "sigmoid":
                    keep(a_at, a_ring, t, seen, keyed & first, RING)
                elif DECAY == "scalar":
                    keep(a_at, a_ring, t, seen, True, RING)
                if STEP == "sigmoid":
                    keep(b_at, b_ring, t, seen, True, RING)
        if TOKENS == 1:
            tl.store(at, S, mask=inside)
            if z_ptr is not None and block == BLOCKS_V - 1:
                tl.store(z_ptr + row * KEY + key, z, mask=keyed)
        outs += (o,)
    tl.debug_barrier()  # all of the program have read it
    tl.store(committed_ptr + row, seen + (TOKENS == 1))

    if TOKENS > 0:
        scale = tl.zeros([ROWS], tl.float32)
        if OUTPUT != "none":
            for block in tl.static_range(BLOCKS_V):
                scale += tl.sum(outs[block] * outs[block], 1)
            scale = 1 / tl.sqrt_rn(scale / VALUE + EPS)
        token = tl.arange(0, ROWS)
        for block in tl.static_range(BLOCKS_V):
            value = block * BLOCK_V + tl.arange(0, BLOCK_V)
            inside = (token < TOKENS)[:, None] & (value < VALUE)[None, :]
            o = outs[block]
            if OUTPUT != "none":
                weight = tl.load(norm_ptr + value, mask=value < VALUE, other=0).to(tl.float32)
                o *= scale[:, None] * weight[None, :]
            if OUTPUT == "silu" or OUTPUT == "sigmoid":
                at = gate_ptr + batch * gate_batch + token.to(tl.int64)[:, None] * gate_token
                at += value_head * VALUE + value[None, :]
                gate = tl.load(at, mask=inside, other=0).to(tl.float32)
                share = tl.sigmoid(gate)
                o *= gate * share if OUTPUT == "silu" else share
            at = out_ptr + (batch * TOKENS + token[:, None]) * (HEADS * GROUP * VALUE)
            tl.store(at + value_head * VALUE + value[None, :], o, mask=inside)


# ------------------------------------------------------------------------------------- tokens


@triton.jit
def ring_of(ring_ptr, batch, channels, channel, RING: tl.constexpr):
    """Where a sequence's ring begins, at given channels, and how far its entries are apart."""
    at = (channel, 0)
    if ring_ptr is not None:
        at = (ring_ptr + batch * RING * channels + channel, channels)
    return at


@triton.jit
def load_block(S_ptr, block, key, keyed, VALUE: tl.constexpr, BLOCK_V: tl.constexpr):
    """(keys, BLOCK_V) float32 of S."""
    value = block * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = keyed[:, None] & (value < VALUE)[None, :]
    at = S_ptr + key[:, None] * VALUE + value[None, :]
    return tl.load(at, mask=inside, other=0).to(tl.float32)


@triton.jit
def load_taps(conv_ptr, channel, mask, CONV: tl.constexpr):
    taps = ()
    for i in tl.static_range(CONV):
        taps += (tl.load(conv_ptr + channel * CONV + i, mask=mask, other=0).to(tl.float32),)
    return taps


@triton.jit
def convolved(at, ring, taps, t, seen, mask, OLD: tl.constexpr, RING: tl.constexpr,
              CONV: tl.constexpr):  # fmt: skip
    """The input of token seen + t, through the convolution if there is one. OLD: t < 0."""
    if CONV == 0:
        y = token_input(at, ring, t, seen, mask, OLD, RING)
    else:
        y = token_input(at, ring, t, seen, mask, OLD, RING) * taps[CONV - 1]
        for i in tl.static_range(CONV - 1):
            s = t - (CONV - 1) + i
            x = tl.load(entry(ring, s, seen, RING), mask=mask & (s < 0) & (seen + s >= 0), other=0)
            x = x.to(tl.float32)
            if not OLD:
                x += tl.load(at[0] + s * at[1], mask=mask & (s >= 0), other=0).to(tl.float32)
            y += taps[i] * x
    return y


@triton.jit
def token_input(at, ring, t, seen, mask, OLD: tl.constexpr, RING: tl.constexpr):
    """float32: what token seen + t brought, from the ring where it is an old one."""
    if OLD:
        x = tl.load(entry(ring, t, seen, RING), mask=mask, other=0)
    else:
        x = tl.load(at[0] + t * at[1], mask=mask, other=0)
    return x.to(tl.float32)


@triton.jit
def entry(ring, t, seen, RING: tl.constexpr):
    return ring[0] + (seen + t + RING) % RING * ring[1]


@triton.jit
def keep(at, ring, t, seen, mask, RING: tl.constexpr):
    """Leave what a new token brought in its ring."""
    tl.store(entry(ring, t, seen, RING), tl.load(at[0] + t * at[1], mask=mask), mask=mask)


# ------------------------------------------------------------------------------- the recurrence


@triton.jit
def load_decay(decay_ptr, bias_ptr, value_head, head, key, keyed, KEY: tl.constexpr,
               DECAY: tl.constexpr):  # fmt: skip
    """What the decay is formed with: a factor, and what is added to a."""
    rate, bias = 0.0, 0.0
    if DECAY == "fixed":
        rate = tl.exp(tl.load(decay_ptr + value_head).to(tl.float32))
    if DECAY == "scalar":
        rate = -tl.exp(tl.load(decay_ptr + value_head).to(tl.float32))
        bias = tl.load(bias_ptr + value_head).to(tl.float32)
    if DECAY == "softplus":
        rate = -tl.exp(tl.load(decay_ptr + head).to(tl.float32))
        bias = tl.load(bias_ptr + head * KEY + key, mask=keyed, other=0).to(tl.float32)
    return rate, bias


@triton.jit
def key_side(
    a_at, a_ring, b_at, b_ring, k_at, k_ring, k_taps, rate, bias, t, seen, keyed,
    OLD: tl.constexpr, RING: tl.constexpr, CONV: tl.constexpr, ACTIVATION: tl.constexpr,
    NORM: tl.constexpr, DECAY: tl.constexpr, TEMPERATURE: tl.constexpr, STEP: tl.constexpr,
    STEP_SCALE: tl.constexpr, COMPLEMENT: tl.constexpr,
):  # fmt: skip
    """A token's decay, the factor of what it writes, and its key."""
    decay, step = rate, 1.0
    if DECAY == "none":
        decay = 1.0
    if DECAY == "scalar":
        softplus = log1p_exp(token_input(a_at, a_ring, t, seen, True, OLD, RING) + bias)
        decay = tl.exp(rate * softplus)
        if STEP == "decay":
            step = softplus
    if DECAY == "softplus":
        a = token_input(a_at, a_ring, t, seen, keyed, OLD, RING)
        log_decay = rate * log1p_exp(a + bias)
        decay = tl.exp(log_decay)
    if DECAY == "sigmoid":
        a = token_input(a_at, a_ring, t, seen, keyed, OLD, RING)
        log_decay = -log1p_exp(-a) / TEMPERATURE
        decay = tl.exp(log_decay)
    if STEP == "sigmoid":
        step = STEP_SCALE * tl.sigmoid(token_input(b_at, b_ring, t, seen, True, OLD, RING))
    if COMPLEMENT:
        k = tl.where(keyed, minus_expm1(log_decay), 0.0)
    else:
        k = convolved(k_at, k_ring, k_taps, t, seen, keyed, OLD, RING, CONV)
        k = normed(activated(k, ACTIVATION), keyed, NORM)
    return decay, step, k


@triton.jit
def moved(S, z, decay, step, k, v, DECAY: tl.constexpr, DELTA: tl.constexpr):
    """S and z after a token."""
    if DECAY == "softplus" or DECAY == "sigmoid":
        S *= decay[:, None]
    else:
        S *= decay
    if DELTA:
        v -= tl.sum(S * k[:, None], 0)
    S += k[:, None] * (step * v)[None, :]
    return S, z * decay + step * k


@triton.jit
def log1p_exp(x):
    """log(1 + e^x), exact also where e^x vanishes beside 1."""
    small = tl.exp(-tl.abs(x))
    one = 1 + small
    log1p = tl.where(one == 1, small, tl.log(one) * (small / tl.where(one == 1, 1.0, one - 1)))
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def minus_expm1(x):
    """1 - e^x for x <= 0, exact also where it is small."""
    y = tl.exp(x)
    inside = (y < 1) & (y > 0.5)
    return tl.where(y == 1, -x, tl.where(inside, (y - 1) * -x / tl.log(tl.where(inside, y, 0.75)),
                                         1 - y))  # fmt: skip


@triton.jit
def activated(x, NAME: tl.constexpr):
    if NAME == "silu":
        x *= tl.sigmoid(x)
    if NAME == "relu":
        x = tl.maximum(x, 0.0)
    if NAME == "elu1":
        x = tl.where(x > 0, x + 1, tl.exp(tl.minimum(x, 0.0)))
    return x


@triton.jit
def normed(x, mask, NAME: tl.constexpr):
    """Over the channels of a head; zero in padding."""
    if NAME == "l2norm":
        x *= 1 / tl.sqrt_rn(tl.sum(tl.where(mask, x * x, 0.0), 0) + UNIT)
    if NAME == "softmax":
        x = tl.exp(x - tl.max(tl.where(mask, x, -float("inf")), 0))
        x /= tl.sum(tl.where(mask, x, 0.0), 0)
    return tl.where(mask, x, 0.0)
