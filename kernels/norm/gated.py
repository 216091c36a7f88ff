"""RMSNorm of each head times an activation of a gate, forward and backward.

A program takes blocks of ROWS heads, each of a token; rows lie in the order of (B, T, H).

Shapes: x, gate, dy (B, T, H, D) of any strides but channels side by side; weight (D,); y, dx and
dgate contiguous. gate_ptr is None where there is no gate.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

VARYING = ("tokens", "rows", "turns")
"""Integers that a kernel is not compiled anew for."""


@triton.jit(do_not_specialize=VARYING)
def gated_norm_forward(
    x_ptr,
    gate_ptr,
    weight_ptr,
    y_ptr,
    x_batch,
    x_token,
    x_head,
    gate_batch,
    gate_token,
    gate_head,
    tokens,
    rows,
    EPS: tl.constexpr,
    SILU: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """y = x / sqrt(mean(x^2) + eps) * weight * activation(gate)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, PADDED)
    mask = (row < rows)[:, None] & (channel < DIM)[None, :]
    at = addresses(row, channel, tokens, x_batch, x_token, x_head, HEADS)
    x = tl.load(x_ptr + at, mask=mask, other=0).to(tl.float32)
    weight = tl.load(weight_ptr + channel, mask=channel < DIM, other=0).to(tl.float32)[None, :]
    y = x * inverse_norm(x, DIM, EPS) * weight
    if gate_ptr is not None:
        at = addresses(row, channel, tokens, gate_batch, gate_token, gate_head, HEADS)
        gate = tl.load(gate_ptr + at, mask=mask, other=0).to(tl.float32)
        share = tl.sigmoid(gate)
        y *= gate * share if SILU else share
    tl.store(y_ptr + row.to(tl.int64)[:, None] * DIM + channel[None, :], y, mask=mask)


@triton.jit(do_not_specialize=VARYING)
def gated_norm_backward(
    dy_ptr,
    x_ptr,
    gate_ptr,
    weight_ptr,
    dx_ptr,
    dgate_ptr,
    partial_ptr,
    dy_batch,
    dy_token,
    dy_head,
    x_batch,
    x_token,
    x_head,
    gate_batch,
    gate_token,
    gate_head,
    tokens,
    rows,
    turns,
    EPS: tl.constexpr,
    SILU: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """dx and dgate; and of this program's `turns` blocks their share of the weight's gradient,
    partial (programs, DIM) float32.

    With n = norm(x), a = activation(gate) and d = dy * a * weight: the weight's gradient is the sum
    of dy * a * n, dx = (d - n * mean(d * n)) / norm, and dgate = dy * n * weight * a'.
    """
    channel = tl.arange(0, PADDED)
    weight = tl.load(weight_ptr + channel, mask=channel < DIM, other=0).to(tl.float32)[None, :]
    total = tl.zeros([ROWS, PADDED], tl.float32)
    for turn in tl.range(turns, num_stages=STAGES):
        row = (turn * tl.num_programs(0) + tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (channel < DIM)[None, :]
        at = addresses(row, channel, tokens, x_batch, x_token, x_head, HEADS)
        x = tl.load(x_ptr + at, mask=mask, other=0).to(tl.float32)
        at = addresses(row, channel, tokens, dy_batch, dy_token, dy_head, HEADS)
        d = tl.load(dy_ptr + at, mask=mask, other=0).to(tl.float32)
        scale = inverse_norm(x, DIM, EPS)
        normed = x * scale
        to = row.to(tl.int64)[:, None] * DIM + channel[None, :]
        if gate_ptr is not None:
            at = addresses(row, channel, tokens, gate_batch, gate_token, gate_head, HEADS)
            gate = tl.load(gate_ptr + at, mask=mask, other=0).to(tl.float32)
            share = tl.sigmoid(gate)
            if SILU:
                slope = share * (1 + gate * (1 - share))
                activation = gate * share
            else:
                slope = share * (1 - share)
                activation = share
            tl.store(dgate_ptr + to, d * normed * weight * slope, mask=mask)
            d *= activation
        total += d * normed
        d *= weight
        mean = tl.sum(d * normed, 1, keep_dims=True) / DIM
        tl.store(dx_ptr + to, (d - normed * mean) * scale, mask=mask)
    at = partial_ptr + tl.program_id(0).to(tl.int64) * DIM + channel
    tl.store(at, tl.sum(total, 0), mask=channel < DIM)


@triton.jit
def addresses(row, channel, tokens, batch_stride, token_stride, head_stride, HEADS: tl.constexpr):
    """(ROWS, PADDED) offsets of rows of (B, T, H)."""
    token = row // HEADS
    batch = (token // tokens).to(tl.int64) * batch_stride
    at = batch + (token % tokens).to(tl.int64) * token_stride + row % HEADS * head_stride
    return at[:, None] + channel[None, :]


@triton.jit
def inverse_norm(x, DIM: tl.constexpr, EPS: tl.constexpr):
    """(ROWS, 1): 1 / sqrt(mean of squares + eps)."""
    return tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / DIM + EPS)
