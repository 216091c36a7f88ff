"""The recurrence on a GPU, forward and backward, as launches one after another.

Shapes as in launch.py; state and its gradients (N, A, K, V) float32, None for zero.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from . import launch
from .chunks import Cut, Inputs
from .plan import multiprocessors, stretches
from .variant import Variant


class Kept(NamedTuple):
    """What the forward pass leaves to the backward one, little beside the inputs: the delta rule's
    system solved (C, A, 64, 64); where there are S stretches the state before each (S, A, K, V) and
    what `carry` gives. None where there is none."""

    solve: Tensor | None = None
    starts: Tensor | None = None
    local: Tensor | None = None
    fade: Tensor | None = None


def forward(
    inputs: Inputs, state: Tensor | None, cu_seqlens: Tensor | None, variant: Variant
) -> tuple[Tensor, Tensor, Kept]:
    """o (N, T, A, V) and the state after the last token."""
    cut = plan(inputs, cu_seqlens, variant)
    inside = launch.scores(inputs, variant, cut)
    if cut.stretches == 1:
        tile = chain_tile(inputs, variant, cut)
        o, last, _, _ = launch.scan(inputs, inside, variant, cut, state, last=True, tile=tile)
        kept = Kept(inside.solve)
    else:
        local, fade = launch.carry(inputs, inside, variant, cut, carry_tile(inputs, variant))
        starts, last = launch.join(local, fade, state, variant, cut, inputs.q.dtype, last=True)
        o, _, _, _ = launch.scan(inputs, inside, variant, cut, starts)
        kept = Kept(inside.solve, starts, local if variant.delta else None, fade)
    assert o is not None and last is not None
    return o, last, kept


def backward(
    do: Tensor,
    dlast: Tensor | None,
    kept: Kept,
    inputs: Inputs,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
    variant: Variant,
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, g, b and the state. Scores and states are made again."""
    cut = plan(inputs, cu_seqlens, variant)
    inside = launch.scores(inputs, variant, cut, kept.solve)
    starts, ends, dstart = state, dlast, None
    if cut.stretches > 1:
        starts = kept.starts
        _, _, local = launch.reverse(
            do, None, inputs, inside, variant, cut, start=True, save=False
        )
        assert local is not None
        moves = kept.fade if kept.local is None else kept.local
        ends, dstart = launch.join(
            local, moves, dlast, variant, cut, do.dtype, back=True, last=state is not None
        )
    tile = chain_tile(inputs, variant, cut)
    _, _, written, states = launch.scan(
        inputs, inside, variant, cut, starts, output=False, save=True, tile=tile
    )
    first = cut.stretches == 1 and state is not None
    y, dstates, dfirst = launch.reverse(
        do, ends, inputs, inside, variant, cut, start=first, tile=tile
    )
    written = inputs.v.contiguous() if written is None else written
    assert states is not None and y is not None and dstates is not None
    grads = launch.gradients(do, inputs, inside, written, states, y, dstates, variant, cut)
    return *grads, dfirst if first else dstart


def plan(inputs: Inputs, cu_seqlens: Tensor | None, variant: Variant) -> Cut:
    """How tokens are cut into chunks, and sequences into stretches where that pays."""
    batch, tokens = inputs.q.shape[:2]
    most = stretches(inputs.q, cu_seqlens is not None, variant)
    return Cut.of(batch, tokens, cu_seqlens, most)


def carry_tile(inputs: Inputs, variant: Variant) -> launch.Entries:
    """Of `carry`, beside its own tile: with fewer products in a turn, more columns."""
    q = inputs.q
    if q.itemsize > 2 or launch.architecture(q) != "sm_90":
        return ()
    wide = variant.key_dim <= 128 and variant.value_dim % 64 == 0
    return (("BLOCK_V", 64),) if wide else ()


def chain_tile(inputs: Inputs, variant: Variant, cut: Cut) -> launch.Entries:
    """What the passes from chunk to chunk are told beside their own tile. Where each program has a
    multiprocessor to itself, more of its memory goes into loads ahead, or into more programs."""
    q = inputs.q
    if q.itemsize > 2 or variant.decay == "vector" or launch.architecture(q) != "sm_90":
        return ()
    programs = cut.sequences * cut.stretches * variant.value_heads * -(-variant.value_dim // 32)
    if variant.key_dim <= 128:
        return (("num_stages", 3),) if programs <= multiprocessors(q) else ()
    return (("BLOCK_V", 16),) if 2 * programs <= multiprocessors(q) else ()
