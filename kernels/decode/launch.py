"""Launch the kernels of a step on CUDA tensors; shapes as in op.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ..launcher import early
from . import attend as attend_kernels
from . import single
from . import update as update_kernels
from .cut import (
    Plan,
    Shape,
    attend_constants,
    choose,
    padded,
    update_constants,
    update_warps,
)
from .layout import Layout
from .rule import Rule
from .state import State, ring_size


def step(
    layout: Layout,
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_k: Tensor | None,
    seen: Tensor,
    rule: Rule,
    score: Callable[[], None] | None = None,
) -> Tensor:
    """(N, T, H, E); two launches, three where a score is the norm of a key. score: what launches
    the scorer, which neither waits for attention nor is waited for by it."""
    death = update(layout, state, k, v, raw_k, seen)
    if score is None:
        return attend(layout, state, q, death, seen, rule)
    if not torch.cuda.is_current_stream_capturing():  # beside costs the host more than it gains
        out = attend(layout, state, q, death, seen, rule)
        score()
        return out
    main, side = torch.cuda.current_stream(q.device), _side(q.device.index or 0)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        score()
    out = attend(layout, state, q, death, seen, rule)
    main.wait_stream(side)
    return out


def update(
    layout: Layout, state: State, k: Tensor, v: Tensor, raw_k: Tensor | None, seen: Tensor
) -> Tensor | None:
    """Put the new tokens into the state. Returns `death`, of what later ones push out of view."""
    batch, tokens, kv_heads, _ = k.shape
    k, v = _adjacent(k), _adjacent(v)
    raw_k = None if raw_k is None else _adjacent(raw_k)
    new_z = None
    if layout.kind == "norm" and layout.contested:
        assert raw_k is not None
        new_z = norms(raw_k)
    slots, ring, soon = layout.slots, ring_size(layout, state), early(k.device.index)
    death = None
    if slots and tokens > 1:
        death = seen.new_empty(batch, kv_heads, slots + tokens - 1, dtype=torch.int32)
    update_kernels.decode_update[(batch * kv_heads,)](
        *(state["k"], state["v"], state["z"] if layout.contested else None, state.get("position")),
        *(state.get("folded"), state.get("raw_k"), state.get("scored"), state.get("due"), death),
        *(k, v, raw_k, new_z, seen),
        *(*k.stride()[:3], *v.stride()[:3], *((0, 0, 0) if raw_k is None else raw_k.stride()[:3])),
        ring,
        **update_constants(layout, _shape(k, v, kv_heads), ring, soon),
        num_warps=update_warps(layout),
        launch_pdl=soon,
    )
    return death


def attend(
    layout: Layout,
    state: State,
    q: Tensor,
    death: Tensor | None,
    seen: Tensor,
    rule: Rule,
    plan: Plan | None = None,
) -> Tensor:
    """Attention of the new tokens q (N, T, H, D) over a state that holds them: (N, T, H, E)."""
    q, v = _adjacent(q), state["v"]
    batch, kv_heads, entries, value_dim = v.shape
    shape = _shape(state["k"].transpose(1, 2), v, q.shape[2], q.shape[1])
    shape = shape._replace(grows=layout.everything)
    programs = batch * kv_heads * shape.row_blocks
    if plan is None:
        plan = choose(shape, batch, entries, _processors(q.device.index or 0))
    partial = stats = None
    if plan.splits > 1:
        lead, wide = (programs, plan.splits), max(16, padded(value_dim))
        partial = q.new_empty(*lead, shape.rows, wide, dtype=torch.float32)
        stats = q.new_empty(*lead, 2, shape.rows, dtype=torch.float32)
    out = q.new_empty(*q.shape[:3], value_dim)
    ring, soon = entries - layout.slots, early(q.device.index)
    kernel = single.decode_attend_single if shape.single else attend_kernels.decode_attend
    kernel[(plan.splits, batch * kv_heads, shape.row_blocks)](
        *(q, state["k"], v, state.get("position"), death, seen),
        *(rule.sink_logits, rule.slopes, out, partial, stats, state["arrivals"]),
        *q.stride()[:3],
        ring,
        **attend_constants(layout, shape, ring, rule.scale, rule.softcap, plan, soon),
        num_warps=plan.warps,
        num_stages=plan.stages,
        launch_pdl=soon,
    )
    return out


def norms(raw_k: Tensor) -> Tensor:
    """-|raw_k| of keys (N, T, G, D): (N, T, G) float32, for a token the same bits in any call."""
    raw_k = _adjacent(raw_k)
    tokens, kv_heads, dim = raw_k.shape[1:]
    z = raw_k.new_empty(raw_k.shape[:3], dtype=torch.float32)
    rows, block = z.numel(), 16
    update_kernels.decode_norms[(-(-rows // block),)](
        *(raw_k, z),
        *raw_k.stride()[:3],
        *(tokens, rows),
        KV_HEADS=kv_heads,
        DIM=dim,
        PADDED_DIM=padded(dim),
        ROWS=block,
        num_warps=4,
    )
    return z


def _shape(k: Tensor, v: Tensor, heads: int, tokens: int | None = None) -> Shape:
    """From k (N, T, G, D) and v (..., E)."""
    tokens = k.shape[1] if tokens is None else tokens
    return Shape(tokens, heads, k.shape[2], k.shape[3], v.shape[-1], k.element_size())


@cache
def _side(index: int) -> torch.cuda.Stream:
    """A stream for what runs beside attention in a CUDA graph."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


@cache
def _processors(index: int) -> int:
    if not torch.cuda.is_available():
        return 1
    count: int = torch.cuda.get_device_properties(index).multi_processor_count
    return count


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
