"""The recurrence on a GPU, forward and backward, as launches one after another.

Shapes as in launch.py; state and its gradients (N, A, K, V) float32, None for zero.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from . import launch
from .chunks import Cut, Inputs
from .variant import CHUNK, Variant

SHORTEST = 8
"""Chunks that are worth a stretch of their own."""


def forward(
    inputs: Inputs, state: Tensor | None, cu_seqlens: Tensor | None, variant: Variant
) -> tuple[Tensor, Tensor]:
    """o (N, T, A, V) and the state after the last token."""
    cut = plan(inputs, cu_seqlens, variant)
    inside = launch.scores(inputs, variant, cut)
    if cut.stretches == 1:
        o, last, _, _ = launch.scan(inputs, inside, variant, cut, state, last=True)
    else:
        starts, last, _ = stretches(inputs, inside, state, variant, cut, last=True)
        o, _, _, _ = launch.scan(inputs, inside, variant, cut, starts)
    assert o is not None and last is not None
    return o, last


def backward(
    do: Tensor,
    dlast: Tensor | None,
    inputs: Inputs,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
    variant: Variant,
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, g, b and the state. Scores and states are made again."""
    cut = plan(inputs, cu_seqlens, variant)
    inside = launch.scores(inputs, variant, cut)
    starts, ends, dstart = state, dlast, None
    if cut.stretches > 1:
        starts, _, moves = stretches(inputs, inside, state, variant, cut)
        _, _, local = launch.reverse(do, None, inputs, inside, variant, cut, start=True, save=False)
        assert local is not None
        dtype = inputs.q.dtype
        ends, dstart = launch.join(
            local, moves, dlast, variant, cut, dtype, back=True, last=state is not None
        )
    _, _, written, states = launch.scan(
        inputs, inside, variant, cut, starts, output=False, save=True
    )
    first = cut.stretches == 1 and state is not None
    y, dstates, dfirst = launch.reverse(do, ends, inputs, inside, variant, cut, start=first)
    assert written is not None and states is not None and y is not None and dstates is not None
    grads = launch.gradients(do, inputs, inside, written, states, y, dstates, variant, cut)
    return *grads, dfirst if first else dstart


def stretches(
    inputs: Inputs,
    inside: launch.Inside,
    state: Tensor | None,
    variant: Variant,
    cut: Cut,
    last: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The state before each stretch of chunks, the last of all, and what becomes of any state in
    each stretch."""
    local, moves = launch.carry(inputs, inside, variant, cut)
    starts, final = launch.join(local, moves, state, variant, cut, inputs.q.dtype, last=last)
    return starts, final, moves


def plan(inputs: Inputs, cu_seqlens: Tensor | None, variant: Variant) -> Cut:
    """How tokens are cut into chunks, and sequences into stretches where that pays."""
    batch, tokens = inputs.q.shape[:2]
    if cu_seqlens is not None:
        return Cut.of(batch, tokens, cu_seqlens)
    most = stretch_count(variant, batch, -(-tokens // CHUNK), multiprocessors(inputs.q))
    return Cut.of(batch, tokens, None, most)


def stretch_count(variant: Variant, batch: int, chunks: int, processors: int) -> int:
    """Stretches that each sequence is cut into: as many as give each multiprocessor two programs,
    if one program per sequence, head and block of 32 channels leaves enough of them idle for what
    stretches cost (each is walked twice; with the delta rule once more for the identity)."""
    programs = batch * variant.value_heads * -(-variant.value_dim // 32)
    walks = -(-variant.key_dim // 128) + 1 if variant.delta else 1
    if programs * walks > processors:
        return 1
    return max(1, min(2 * processors // programs, chunks // SHORTEST))


def multiprocessors(x: Tensor) -> int:
    """Of x's device; one where there are none."""
    return _multiprocessors(x.device.index or 0) if x.device.type == "cuda" else 1


@cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count
