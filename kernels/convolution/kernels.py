"""The convolution with what follows it, forward and backward.

A program walks over a run of tokens of BLOCK channels and carries the last inputs along, so that
each is read once. Rows of UNROLL tokens are loaded together. Channels are those of up to three
parts, each with a result of its own; a program's part is told by its place in the grid.

Shapes: x (B, T, C), rows with gaps allowed; weight (C, KERNEL); initial, tail (N, KERNEL - 1, C)
contiguous; y and dy of a part (B, T, its channels) contiguous; dx (B, T, C) contiguous; places
(3, T) int32, start, end and number of each token's sequence where sequences are packed, else None.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment, misc"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

VARYING = ("tokens", "runs")
"""Integers that a kernel is not compiled anew for."""
EPSILON = tl.constexpr(1e-6)
"""Added to the sum of squares of a head."""


@triton.jit(do_not_specialize=VARYING)
def convolution_forward(
    x_ptr,
    weight_ptr,
    bias_ptr,
    initial_ptr,
    places_ptr,
    y0_ptr,
    y1_ptr,
    y2_ptr,
    tail_ptr,
    x_batch,
    x_token,
    channels,
    tokens,
    runs,
    KERNEL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    UNROLL: tl.constexpr,
    NORMED: tl.constexpr,
    DIVISOR: tl.constexpr,
    BLOCKS_0: tl.constexpr,
    CHANNELS_0: tl.constexpr,
    SILU_0: tl.constexpr,
    NORM_0: tl.constexpr,
    BLOCKS_1: tl.constexpr,
    CHANNELS_1: tl.constexpr,
    SILU_1: tl.constexpr,
    NORM_1: tl.constexpr,
    BLOCKS_2: tl.constexpr,
    CHANNELS_2: tl.constexpr,
    SILU_2: tl.constexpr,
    NORM_2: tl.constexpr,
):
    """y of each part, and, where tail_ptr is given, the last KERNEL - 1 inputs of each sequence."""
    block, part = tl.program_id(0), 0
    y_ptr, width, base, silu, norm = y0_ptr, CHANNELS_0, 0, SILU_0, NORM_0
    if BLOCKS_1 > 0:
        part = (block >= BLOCKS_0).to(tl.int32) + (block >= BLOCKS_0 + BLOCKS_1)
        if part == 1:
            y_ptr, width, base, silu, norm = y1_ptr, CHANNELS_1, CHANNELS_0, SILU_1, NORM_1
            block -= BLOCKS_0
        if part == 2:
            y_ptr, width, base = y2_ptr, CHANNELS_2, CHANNELS_0 + CHANNELS_1
            silu, norm = SILU_2, NORM_2
            block -= BLOCKS_0 + BLOCKS_1
        width, base = width // DIVISOR * DIVISOR, base // DIVISOR * DIVISOR  # Triton's hint
    place = block_channels(block, HEAD_DIM, PADDED, BLOCK)
    inside = real_channels(place, width, HEAD_DIM, PADDED, BLOCK)
    channel = base + place
    batch = (tl.program_id(1) // runs).to(tl.int64)
    first = tl.program_id(1) % runs * RUN
    x_ptr += batch * x_batch + channel
    y_ptr += batch * tokens * width + place
    weight = load_weight(weight_ptr, channel, inside, KERNEL)
    bias = load_bias(bias_ptr, channel, inside, BLOCK)
    if initial_ptr is not None:
        initial_ptr += channel
    if tail_ptr is not None:
        tail_ptr += channel
    begin, end, number = sequence_of(places_ptr, first, batch, tokens)
    taps = ()
    for age in tl.static_range(KERNEL - 1, 0, -1):
        taps += (
            earlier(x_ptr, initial_ptr, first - age, begin, number, inside, x_token, channels,
                    KERNEL),
        )  # fmt: skip
    for start in range(first, tl.minimum(first + RUN, tokens), UNROLL):
        rows = load_rows(x_ptr, start, tokens, inside, x_token, UNROLL)
        for i in tl.static_range(UNROLL):
            t = start + i
            live = (t < tokens) & (t < first + RUN)
            if places_ptr is not None:
                begin, end, number = sequence_of(places_ptr, t, batch, tokens)
                taps = restarted(taps, initial_ptr, t == begin, number, inside, channels, KERNEL)
            z = bias
            taps += (rows[i].to(tl.float32),)
            for k in tl.static_range(KERNEL):
                z += weight[k] * taps[k]
            y = mapped(z, silu, norm, NORMED, PADDED, BLOCK)
            tl.store(y_ptr + tl.cast(t, tl.int64) * width, y, mask=inside & live)
            taps = taps[1:]
            if tail_ptr is not None:
                last = inside & live & (t == end - 1)
                for k in tl.static_range(KERNEL - 1):
                    at = tail_ptr + (number * (KERNEL - 1) + k) * channels
                    tl.store(at, taps[k], mask=last)


@triton.jit(do_not_specialize=VARYING)
def convolution_backward(
    dy0_ptr,
    dy1_ptr,
    dy2_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    initial_ptr,
    places_ptr,
    dx_ptr,
    partial_ptr,
    x_batch,
    x_token,
    channels,
    tokens,
    runs,
    KERNEL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
    ROWS: tl.constexpr,
    UNROLL: tl.constexpr,
    NORMED: tl.constexpr,
    DIVISOR: tl.constexpr,
    BLOCKS_0: tl.constexpr,
    CHANNELS_0: tl.constexpr,
    SILU_0: tl.constexpr,
    NORM_0: tl.constexpr,
    BLOCKS_1: tl.constexpr,
    CHANNELS_1: tl.constexpr,
    SILU_1: tl.constexpr,
    NORM_1: tl.constexpr,
    BLOCKS_2: tl.constexpr,
    CHANNELS_2: tl.constexpr,
    SILU_2: tl.constexpr,
    NORM_2: tl.constexpr,
):
    """dx, and of each program its share of the weight's and the bias's gradient, `partial`
    (programs of a channel, KERNEL + 1, C) float32.

    With d_t the gradient of the convolution's result, dx_s is the sum over ages a of
    weight[KERNEL - 1 - a] d_(s + a): `owed` holds the sums that later tokens still add to. So a
    run reads KERNEL - 1 tokens of the next one.
    """
    block, part = tl.program_id(0), 0
    dy_ptr, width, base, silu, norm = dy0_ptr, CHANNELS_0, 0, SILU_0, NORM_0
    if BLOCKS_1 > 0:
        part = (block >= BLOCKS_0).to(tl.int32) + (block >= BLOCKS_0 + BLOCKS_1)
        if part == 1:
            dy_ptr, width, base, silu, norm = dy1_ptr, CHANNELS_1, CHANNELS_0, SILU_1, NORM_1
            block -= BLOCKS_0
        if part == 2:
            dy_ptr, width, base = dy2_ptr, CHANNELS_2, CHANNELS_0 + CHANNELS_1
            silu, norm = SILU_2, NORM_2
            block -= BLOCKS_0 + BLOCKS_1
        width, base = width // DIVISOR * DIVISOR, base // DIVISOR * DIVISOR  # Triton's hint
    place = block_channels(block, HEAD_DIM, PADDED, BLOCK)
    inside = real_channels(place, width, HEAD_DIM, PADDED, BLOCK)
    channel = base + place
    batch = (tl.program_id(1) // runs).to(tl.int64)
    first = tl.program_id(1) % runs * RUN
    x_ptr += batch * x_batch + channel
    dy_ptr += batch * tokens * width + place
    dx_ptr += batch * tokens * channels + channel
    weight = load_weight(weight_ptr, channel, inside, KERNEL)
    bias = load_bias(bias_ptr, channel, inside, BLOCK)
    if initial_ptr is not None:
        initial_ptr += channel
    begin, _, number = sequence_of(places_ptr, first, batch, tokens)
    taps = ()
    for age in tl.static_range(KERNEL - 1, 0, -1):
        taps += (
            earlier(x_ptr, initial_ptr, first - age, begin, number, inside, x_token, channels,
                    KERNEL),
        )  # fmt: skip
    owed = zeros(KERNEL - 1, BLOCK)
    weight_sums = zeros(KERNEL, BLOCK)
    bias_sum = tl.zeros([BLOCK], tl.float32)
    for start in range(first, first + ROWS, UNROLL):
        rows = load_rows(x_ptr, start, tokens, inside, x_token, UNROLL)
        gradients = load_rows(dy_ptr, start, tokens, inside, width, UNROLL)
        for i in tl.static_range(UNROLL):
            t = start + i
            if places_ptr is not None:
                begin, _, number = sequence_of(places_ptr, t, batch, tokens)
                taps = restarted(taps, initial_ptr, t == begin, number, inside, channels, KERNEL)
            z = bias
            taps += (rows[i].to(tl.float32),)
            for k in tl.static_range(KERNEL):
                z += weight[k] * taps[k]
            d = unmapped(gradients[i].to(tl.float32), z, silu, norm, NORMED, PADDED, BLOCK)
            own = tl.where(t < first + RUN, d, 0.0)
            bias_sum += own
            sums = ()
            for k in tl.static_range(KERNEL):
                sums += (weight_sums[k] + own * taps[k],)
            weight_sums = sums
            taps = taps[1:]
            # A token before the start of this one's sequence is owed nothing by it.
            sums = ()
            for k in tl.static_range(KERNEL - 1):
                mine = d
                if places_ptr is not None:
                    mine = tl.where(t - (KERNEL - 1) + k >= begin, d, 0.0)
                sums += (owed[k] + weight[k] * mine,)
            sums += (weight[KERNEL - 1] * d,)
            done = t - (KERNEL - 1)
            owned = (done >= first) & (done < tl.minimum(first + RUN, tokens))
            at = dx_ptr + tl.cast(done, tl.int64) * channels
            tl.store(at, sums[0], mask=inside & owned)
            owed = sums[1:]
    at = partial_ptr + tl.program_id(1).to(tl.int64) * (KERNEL + 1) * channels + channel
    for k in tl.static_range(KERNEL):
        tl.store(at + k * channels, weight_sums[k], mask=inside)
    tl.store(at + KERNEL * channels, bias_sum, mask=inside)


# ------------------------------------------------------------------------------------ channels


@triton.jit
def block_channels(block, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """(BLOCK,): channels of a block of whole heads; those of padding belong to other heads."""
    index = tl.arange(0, BLOCK)
    if HEAD_DIM == PADDED:
        return block * BLOCK + index
    return (block * (BLOCK // PADDED) + index // PADDED) * HEAD_DIM + index % PADDED


@triton.jit
def real_channels(place, width, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """Which of them are no padding."""
    if HEAD_DIM == PADDED:
        return place < width
    return (place < width) & (tl.arange(0, BLOCK) % PADDED < HEAD_DIM)


@triton.jit
def load_weight(weight_ptr, channel, inside, KERNEL: tl.constexpr):
    """KERNEL taps, the oldest input's first."""
    weight = ()
    for k in tl.static_range(KERNEL):
        weight += (tl.load(weight_ptr + channel * KERNEL + k, mask=inside, other=0).to(tl.float32),)
    return weight


@triton.jit
def load_bias(bias_ptr, channel, inside, BLOCK: tl.constexpr):
    bias = tl.zeros([BLOCK], tl.float32)
    if bias_ptr is not None:
        bias += tl.load(bias_ptr + channel, mask=inside, other=0).to(tl.float32)
    return bias


# -------------------------------------------------------------------------------------- tokens


@triton.jit
def sequence_of(places_ptr, t, batch, tokens):
    """Start, end and number of the sequence that t is in."""
    begin, end, number = 0, tokens, batch
    if places_ptr is not None:
        at = places_ptr + tl.minimum(t, tokens - 1)
        begin, end = tl.load(at), tl.load(at + tokens)
        number = tl.load(at + 2 * tl.cast(tokens, tl.int64)).to(tl.int64)
    return begin, end, number


@triton.jit
def load_rows(at, start, tokens, inside, stride, UNROLL: tl.constexpr):
    """Rows of UNROLL tokens, zero beyond the last."""
    rows = ()
    for i in tl.static_range(UNROLL):
        t = start + i
        row = at + tl.cast(t, tl.int64) * stride
        rows += (tl.load(row, mask=inside & (t < tokens), other=0),)
    return rows


@triton.jit
def earlier(
    x_ptr, initial_ptr, source, begin, number, inside, x_token, channels, KERNEL: tl.constexpr
):
    """(BLOCK,) float32: the input of token `source`, or what stood before its sequence."""
    known = inside & (source >= begin)
    value = tl.load(x_ptr + tl.cast(source, tl.int64) * x_token, mask=known, other=0)
    value = value.to(tl.float32)
    if initial_ptr is not None:
        at = initial_ptr + (number * (KERNEL - 1) + (KERNEL - 1) + source - begin) * channels
        value += tl.load(at, mask=inside & (source < begin), other=0).to(tl.float32)
    return value


@triton.jit
def restarted(taps, initial_ptr, now, number, inside, channels, KERNEL: tl.constexpr):
    """What stands before the first token of a sequence, if that is `now`."""
    fresh = ()
    for k in tl.static_range(KERNEL - 1):
        before = tl.where(now, 0.0, taps[k])
        if initial_ptr is not None:
            at = initial_ptr + (number * (KERNEL - 1) + k) * channels
            before += tl.load(at, mask=inside & now, other=0).to(tl.float32)
        fresh += (before,)
    return fresh


@triton.jit
def zeros(COUNT: tl.constexpr, BLOCK: tl.constexpr):
    found = ()
    for k in tl.static_range(COUNT):
        found += (tl.full([BLOCK], 0.0 * k, tl.float32),)
    return found


# ---------------------------------------------------------------------------- what follows


@triton.jit
def mapped(z, silu, norm, NORMED: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """silu(z) if `silu`, then over the length of its head if `norm`, as one of the parts is."""
    y = tl.where(silu, z * tl.sigmoid(z), z)
    if NORMED:
        y *= tl.where(norm, inverse_length(y, PADDED, BLOCK), 1.0)
    return y


@triton.jit
def unmapped(dy, z, silu, norm, NORMED: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """The gradient of z, from that of mapped(z)."""
    share = tl.sigmoid(z)
    if NORMED:
        y = tl.where(silu, z * share, z)
        scale = inverse_length(y, PADDED, BLOCK)
        normed = y * scale
        along = spread(head_sums(dy * normed, PADDED, BLOCK), PADDED, BLOCK)
        dy = tl.where(norm, (dy - normed * along) * scale, dy)
    return tl.where(silu, dy * share * (1 + z * (1 - share)), dy)


@triton.jit
def inverse_length(y, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """(BLOCK,): of each head, at all of its channels. Padding holds zeros."""
    return spread(tl.rsqrt(head_sums(y * y, PADDED, BLOCK) + EPSILON), PADDED, BLOCK)


@triton.jit
def head_sums(y, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """(heads, 1)."""
    return tl.sum(tl.reshape(y, [BLOCK // PADDED, PADDED]), 1, keep_dims=True)


@triton.jit
def spread(heads, PADDED: tl.constexpr, BLOCK: tl.constexpr):
    """(heads, 1) to (BLOCK,)."""
    return tl.reshape(tl.broadcast_to(heads, [BLOCK // PADDED, PADDED]), [BLOCK])
