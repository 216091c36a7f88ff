"""y = x W^T for few rows of x: each weight is read once, and reading is all that takes time.

A program takes BLOCK_OUT outputs of one matrix. Its first weights are under way before the kernel
that makes x is over (programmatic dependent launch): weights depend on nothing.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit
def linear_few(
    x_ptr,
    w0_ptr,
    w1_ptr,
    w2_ptr,
    b0_ptr,
    b1_ptr,
    b2_ptr,
    residual_ptr,
    y_ptr,
    x_row,
    residual_row,
    IN: tl.constexpr,
    OUT0: tl.constexpr,
    OUT1: tl.constexpr,
    OUT2: tl.constexpr,
    ROWS: tl.constexpr,
    PADDED_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    EARLY: tl.constexpr,
):
    """x (ROWS, IN) with rows x_row apart; w0, w1, w2 (OUT, IN) and biases (OUT,), of which the last
    may be missing; y (ROWS, OUT0 + OUT1 + OUT2), the matrices' outputs side by side. residual: what
    is added to y, rows of its shape residual_row apart, if any."""
    BLOCKS0: tl.constexpr = (OUT0 + BLOCK_OUT - 1) // BLOCK_OUT
    BLOCKS1: tl.constexpr = (OUT1 + BLOCK_OUT - 1) // BLOCK_OUT
    if EARLY:
        gdc_launch_dependents()  # the next kernel waits in its turn, once it is under way
    block = tl.program_id(0)
    w_ptr, b_ptr, outputs, column = w0_ptr, b0_ptr, OUT0, 0
    if OUT1 > 0 and block >= BLOCKS0:
        block -= BLOCKS0
        w_ptr, b_ptr, outputs, column = w1_ptr, b1_ptr, OUT1, OUT0
        if OUT2 > 0 and block >= BLOCKS1:
            block -= BLOCKS1
            w_ptr, b_ptr, outputs, column = w2_ptr, b2_ptr, OUT2, OUT0 + OUT1
    out = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    w = weights(w_ptr, out, outputs, 0, IN, BLOCK_IN)
    if EARLY:
        gdc_wait()  # for x
    sums = products(x_ptr, x_row, w, w_ptr, out, outputs, IN, ROWS, PADDED_ROWS, BLOCK_IN)
    if b_ptr is not None:
        sums += tl.load(b_ptr + out, mask=out < outputs, other=0.0).to(tl.float32)[None, :]
    if residual_ptr is not None:
        at = residual_ptr + column
        sums += load(at, residual_row, out, outputs, ROWS, PADDED_ROWS).to(tl.float32)
    store(y_ptr + column, sums, out, outputs, OUT0 + OUT1 + OUT2, ROWS, PADDED_ROWS)


@triton.jit
def linear_gated(
    x_ptr,
    gate_ptr,
    up_ptr,
    y_ptr,
    x_row,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    PADDED_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    EARLY: tl.constexpr,
):
    """y (ROWS, OUT) = silu(x gate^T) * (x up^T)."""
    if EARLY:
        gdc_launch_dependents()
    out = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    w_gate = weights(gate_ptr, out, OUT, 0, IN, BLOCK_IN)
    w_up = weights(up_ptr, out, OUT, 0, IN, BLOCK_IN)
    if EARLY:
        gdc_wait()
    gate = products(x_ptr, x_row, w_gate, gate_ptr, out, OUT, IN, ROWS, PADDED_ROWS, BLOCK_IN)
    up = products(x_ptr, x_row, w_up, up_ptr, out, OUT, IN, ROWS, PADDED_ROWS, BLOCK_IN)
    store(y_ptr, gate * tl.sigmoid(gate) * up, out, OUT, OUT, ROWS, PADDED_ROWS)


@triton.jit
def products(
    x_ptr,
    x_row,
    w,
    w_ptr,
    out,
    outputs,
    IN: tl.constexpr,
    ROWS: tl.constexpr,
    PADDED_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """(ROWS, BLOCK_OUT) float32: rows of x with rows `out` of a matrix, whose first BLOCK_IN
    columns are w."""
    row = tl.arange(0, PADDED_ROWS)
    sums = tl.zeros([PADDED_ROWS, out.shape[0]], tl.float32)
    for start in tl.static_range(0, IN, BLOCK_IN):
        if start > 0:
            w = weights(w_ptr, out, outputs, start, IN, BLOCK_IN)
        index = start + tl.arange(0, BLOCK_IN)
        for m in tl.static_range(ROWS):
            x = tl.load(x_ptr + m * x_row + index, mask=index < IN, other=0.0)
            part = tl.sum(w.to(tl.float32) * x.to(tl.float32)[None, :], 1)
            sums += tl.where(row[:, None] == m, part[None, :], 0.0)
    return sums


@triton.jit
def weights(w_ptr, out, outputs, start, IN: tl.constexpr, BLOCK_IN: tl.constexpr):
    """(BLOCK_OUT, BLOCK_IN): of rows `out`, columns from `start` on, zero beyond the last."""
    index = start + tl.arange(0, BLOCK_IN)
    at = w_ptr + out.to(tl.int64)[:, None] * IN + index[None, :]
    return tl.load(at, mask=(out < outputs)[:, None] & (index < IN)[None, :], other=0.0)


@triton.jit
def load(at, stride, out, outputs, ROWS: tl.constexpr, PADDED_ROWS: tl.constexpr):
    """Columns `out` of rows that are `stride` apart."""
    row = tl.arange(0, PADDED_ROWS)
    mask = (row < ROWS)[:, None] & (out < outputs)[None, :]
    return tl.load(at + row[:, None] * stride + out[None, :], mask=mask, other=0.0)


@triton.jit
def store(
    y_ptr, y, out, outputs, WIDTH: tl.constexpr, ROWS: tl.constexpr, PADDED_ROWS: tl.constexpr
):
    """Rows of WIDTH numbers."""
    row = tl.arange(0, PADDED_ROWS)
    at = y_ptr + row[:, None] * WIDTH + out[None, :]
    mask = (row < ROWS)[:, None] & (out < outputs)[None, :]
    tl.store(at, y.to(y_ptr.dtype.element_ty), mask=mask)
