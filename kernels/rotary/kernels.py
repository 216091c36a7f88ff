"""Rotary embedding and the norm before it: one launch forward, one backward.

A program takes ROWS tokens and `share` of their heads. Cosines and sines are computed once, in
registers, and serve all of its heads, so that what moves is x in and y out. A head is two halves of
HALF channels that turn against each other, and REST channels that do not turn. Arithmetic is
float32; frequencies are rounded from float64, as dense.py rounds them.

x and dy are (B, T, heads, DIM) of any strides with adjacent channels; y and dx are contiguous. Rows
count tokens of all sequences; positions are (B, T) or (1, T). Without a norm the weight is None.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

VARYING = ("positions_batch", "positions_token", "tokens", "rows", "heads", "share")
"""Integers that a kernel is not compiled anew for."""


@triton.jit(do_not_specialize=VARYING)
def rotary_forward(
    x_ptr,
    positions_ptr,
    weight_ptr,
    y_ptr,
    x_batch,
    x_token,
    x_head,
    positions_batch,
    positions_token,
    tokens,
    rows,
    heads,
    share,
    LOG2_THETA: tl.constexpr,
    EPS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    PADDED_REST: tl.constexpr,
    ROWS: tl.constexpr,
):
    """y = turn(norm(x) * weight)."""
    REST: tl.constexpr = DIM - 2 * HALF
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    batch, token = (row // tokens).to(tl.int64), (row % tokens).to(tl.int64)
    position_at = positions_ptr + batch * positions_batch + token * positions_token
    position = tl.load(position_at, mask=live, other=0)
    cos, sin = cos_sin(position, LOG2_THETA, HALF, PADDED_HALF)
    if weight_ptr is not None:
        weight_a = load_weight(weight_ptr, HALF, PADDED_HALF)
        weight_b = load_weight(weight_ptr + HALF, HALF, PADDED_HALF)
        weight_c = load_weight(weight_ptr + 2 * HALF, REST, PADDED_REST)
    first = tl.program_id(1).to(tl.int64) * share
    for head in range(first, tl.minimum(first + share, heads)):
        x_at = x_ptr + batch * x_batch + token * x_token + head * x_head
        a = load(x_at, live, HALF, PADDED_HALF)
        b = load(x_at + HALF, live, HALF, PADDED_HALF)
        c = load(x_at + 2 * HALF, live, REST, PADDED_REST)
        if weight_ptr is not None:
            scale = inverse_norm(a, b, c, DIM, EPS)
            a, b, c = a * scale * weight_a, b * scale * weight_b, c * scale * weight_c
        y_at = y_ptr + (row.to(tl.int64) * heads + head) * DIM
        store(y_at, a * cos - b * sin, live, HALF, PADDED_HALF)
        store(y_at + HALF, b * cos + a * sin, live, HALF, PADDED_HALF)
        store(y_at + 2 * HALF, c, live, REST, PADDED_REST)


@triton.jit(do_not_specialize=VARYING)
def rotary_backward(
    dy_ptr,
    x_ptr,
    positions_ptr,
    weight_ptr,
    dx_ptr,
    partial_ptr,
    dy_batch,
    dy_token,
    dy_head,
    x_batch,
    x_token,
    x_head,
    positions_batch,
    positions_token,
    tokens,
    rows,
    heads,
    share,
    LOG2_THETA: tl.constexpr,
    EPS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    PADDED_REST: tl.constexpr,
    ROWS: tl.constexpr,
):
    """dx, and this program's share of the weight's gradient: partial (programs, DIM) float32.

    With n = norm(x), d the gradient turned back and g = d * weight: the weight's gradient is the
    sum of d * n, and dx = (g - n * mean(g * n)) / norm. Without a weight, dx = d and x is not read.
    """
    REST: tl.constexpr = DIM - 2 * HALF
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    batch, token = (row // tokens).to(tl.int64), (row % tokens).to(tl.int64)
    position_at = positions_ptr + batch * positions_batch + token * positions_token
    position = tl.load(position_at, mask=live, other=0)
    cos, sin = cos_sin(position, LOG2_THETA, HALF, PADDED_HALF)
    if weight_ptr is not None:
        weight_a = load_weight(weight_ptr, HALF, PADDED_HALF)
        weight_b = load_weight(weight_ptr + HALF, HALF, PADDED_HALF)
        weight_c = load_weight(weight_ptr + 2 * HALF, REST, PADDED_REST)
        sum_a = tl.zeros([ROWS, PADDED_HALF], tl.float32)
        sum_b = tl.zeros([ROWS, PADDED_HALF], tl.float32)
        sum_c = tl.zeros([ROWS, PADDED_REST], tl.float32)
    first = tl.program_id(1).to(tl.int64) * share
    for head in range(first, tl.minimum(first + share, heads)):
        dy_at = dy_ptr + batch * dy_batch + token * dy_token + head * dy_head
        turned_a = load(dy_at, live, HALF, PADDED_HALF)
        turned_b = load(dy_at + HALF, live, HALF, PADDED_HALF)
        a = turned_a * cos + turned_b * sin
        b = turned_b * cos - turned_a * sin
        c = load(dy_at + 2 * HALF, live, REST, PADDED_REST)
        if weight_ptr is not None:
            x_at = x_ptr + batch * x_batch + token * x_token + head * x_head
            x_a = load(x_at, live, HALF, PADDED_HALF)
            x_b = load(x_at + HALF, live, HALF, PADDED_HALF)
            x_c = load(x_at + 2 * HALF, live, REST, PADDED_REST)
            scale = inverse_norm(x_a, x_b, x_c, DIM, EPS)
            x_a, x_b, x_c = x_a * scale, x_b * scale, x_c * scale
            sum_a, sum_b, sum_c = sum_a + a * x_a, sum_b + b * x_b, sum_c + c * x_c
            a, b, c = a * weight_a, b * weight_b, c * weight_c
            mean = row_sum(a * x_a, b * x_b, c * x_c) / DIM
            a, b, c = (a - x_a * mean) * scale, (b - x_b * mean) * scale, (c - x_c * mean) * scale
        dx_at = dx_ptr + (row.to(tl.int64) * heads + head) * DIM
        store(dx_at, a, live, HALF, PADDED_HALF)
        store(dx_at + HALF, b, live, HALF, PADDED_HALF)
        store(dx_at + 2 * HALF, c, live, REST, PADDED_REST)
    if weight_ptr is not None:
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        at = partial_ptr + program.to(tl.int64) * DIM
        store_weight(at, tl.sum(sum_a, 0), HALF, PADDED_HALF)
        store_weight(at + HALF, tl.sum(sum_b, 0), HALF, PADDED_HALF)
        store_weight(at + 2 * HALF, tl.sum(sum_c, 0), REST, PADDED_REST)


@triton.jit
def cos_sin(position, LOG2_THETA: tl.constexpr, HALF: tl.constexpr, PADDED: tl.constexpr):
    """Of position * theta^(-i / HALF) radians: (ROWS, PADDED) each."""
    exponent = tl.arange(0, PADDED).to(tl.float64) * (-LOG2_THETA / HALF)
    frequency = tl.exp2(exponent).to(tl.float32)
    turns = position.to(tl.float32)[:, None] * frequency[None, :]
    return tl.cos(turns), tl.sin(turns)


@triton.jit
def inverse_norm(a, b, c, DIM: tl.constexpr, EPS: tl.constexpr):
    """(ROWS, 1): 1 / sqrt(mean of squares + eps)."""
    return 1 / tl.sqrt_rn(row_sum(a * a, b * b, c * c) / DIM + EPS)


@triton.jit
def row_sum(a, b, c):
    """(ROWS, 1): over the channels of all three parts."""
    return tl.sum(a + b, 1, keep_dims=True) + tl.sum(c, 1, keep_dims=True)


@triton.jit
def load(at, live, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """(ROWS, PADDED) float32 from rows that begin at `at`, zero beyond WIDTH channels; a part
    without channels is a column of zeros that the compiler folds away."""
    if WIDTH == 0:
        return tl.zeros([live.shape[0], PADDED], tl.float32)
    channel = tl.arange(0, PADDED)
    mask = live[:, None] & (channel < WIDTH)[None, :]
    return tl.load(at[:, None] + channel[None, :], mask=mask, other=0).to(tl.float32)


@triton.jit
def store(at, value, live, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The reverse of `load`, rounded to what `at` points to."""
    if WIDTH > 0:
        channel = tl.arange(0, PADDED)
        mask = live[:, None] & (channel < WIDTH)[None, :]
        tl.store(at[:, None] + channel[None, :], value, mask=mask)


@triton.jit
def load_weight(at, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """(1, PADDED) float32, zero beyond WIDTH."""
    channel = tl.arange(0, PADDED)
    return tl.load(at + channel, mask=channel < WIDTH, other=0).to(tl.float32)[None, :]


@triton.jit
def store_weight(at, value, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    channel = tl.arange(0, PADDED)
    tl.store(at + channel, value, mask=channel < WIDTH)
