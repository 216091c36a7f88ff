"""Cross-entropy: logits are read once forward, and once backward, where their gradient is written.

A program takes a row of VOCAB logits, BLOCK at a time, in float32. Forward it keeps the largest so
far and the sum of exponentials less that. logits are (rows, VOCAB) with adjacent columns, the
gradient is contiguous. A row whose target is IGNORED costs nothing and has no gradient; the loss of
one whose target is no column is not a number.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit
def entropy_forward(
    logits_ptr,
    targets_ptr,
    losses_ptr,
    lse_ptr,
    stride,
    VOCAB: tl.constexpr,
    IGNORED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """losses = lse - logits[target], and lse = log(sum(exp(logits))), both (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    at = logits_ptr + row * stride
    column = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, VOCAB, BLOCK):
        live = start + column < VOCAB
        x = tl.load(at + start + column, mask=live, other=float("-inf")).to(tl.float32)
        new = tl.maximum(top, x)
        # Minus infinity less itself is no number: a column that has seen nothing else adds none.
        base = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(top - base) + tl.exp(x - base)
        top = new
    highest = tl.max(top, 0)
    lse = highest + tl.log(tl.sum(total * tl.exp(top - highest), 0))
    target = tl.load(targets_ptr + row)
    there = (target >= 0) & (target < VOCAB)
    chosen = tl.load(at + target, mask=there, other=float("nan")).to(tl.float32)
    tl.store(losses_ptr + row, tl.where(target == IGNORED, 0.0, lse - chosen))
    tl.store(lse_ptr + row, lse)


@triton.jit
def entropy_backward(
    dlosses_ptr,
    logits_ptr,
    targets_ptr,
    lse_ptr,
    dlogits_ptr,
    stride,
    dlosses_stride,
    VOCAB: tl.constexpr,
    IGNORED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dlogits = (softmax(logits) - [column = target]) * dlosses."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = column < VOCAB
    target = tl.load(targets_ptr + row)
    dloss = tl.load(dlosses_ptr + row * dlosses_stride).to(tl.float32)
    dloss = tl.where(target == IGNORED, 0.0, dloss)
    x = tl.load(logits_ptr + row * stride + column, mask=live, other=0).to(tl.float32)
    share = tl.exp(x - tl.load(lse_ptr + row))
    share = tl.where(column == target, share - 1, share)
    tl.store(dlogits_ptr + row * VOCAB + column, share * dloss, mask=live)
