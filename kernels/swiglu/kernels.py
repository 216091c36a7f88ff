"""silu(gate) * up: one launch forward, one backward, in which nothing but bytes takes time.

All tensors are contiguous and of one shape, `total` numbers each; a program takes BLOCK of them.
Arithmetic is float32, rounded once, at the end.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit
def swiglu_forward(gate_ptr, up_ptr, out_ptr, total, BLOCK: tl.constexpr):
    """out = silu(gate) * up."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < total
    gate = tl.load(gate_ptr + at, mask=live, other=0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=live, other=0).to(tl.float32)
    tl.store(out_ptr + at, gate * tl.sigmoid(gate) * up, mask=live)


@triton.jit
def swiglu_backward(dout_ptr, gate_ptr, up_ptr, dgate_ptr, dup_ptr, total, BLOCK: tl.constexpr):
    """dgate = dout * up * silu'(gate), dup = dout * silu(gate)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < total
    dout = tl.load(dout_ptr + at, mask=live, other=0).to(tl.float32)
    gate = tl.load(gate_ptr + at, mask=live, other=0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=live, other=0).to(tl.float32)
    share = tl.sigmoid(gate)
    silu = gate * share
    tl.store(dgate_ptr + at, dout * up * (share + silu * (1 - share)), mask=live)
    tl.store(dup_ptr + at, dout * silu, mask=live)
