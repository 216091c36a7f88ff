"""The RMS norm of rows, for steps: one launch, whose weight is there before the rows are.

A program takes one row of WIDTH channels. Arithmetic is float32, rounded once.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit
def rms_rows(
    x_ptr,
    weight_ptr,
    y_ptr,
    x_row,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    EARLY: tl.constexpr,
):
    """y (rows, WIDTH) = x / sqrt(mean(x^2) + EPS) * weight; x of rows x_row apart."""
    if EARLY:
        gdc_launch_dependents()  # the next kernel waits in its turn, once it is under way
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, PADDED)
    inside = channel < WIDTH
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_wait()  # for x
    x = tl.load(x_ptr + row * x_row + channel, mask=inside, other=0.0).to(tl.float32)
    y = x / tl.sqrt_rn(tl.sum(x * x, 0) / WIDTH + EPS) * weight
    tl.store(y_ptr + row * WIDTH + channel, y.to(y_ptr.dtype.element_ty), mask=inside)
