"""Launch what fills a state on CUDA tensors; shapes as in state.py."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..launcher import Launcher
from . import fill as kernels
from . import fill_cut
from .layout import Layout

State = dict[str, Tensor]


def fill(
    layout: Layout,
    state: State,
    k: Tensor,
    v: Tensor,
    *,
    next: Tensor,
    raw_k: Tensor | None = None,
    z: Tensor | None = None,
    death: Tensor | None = None,
    positions: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> None:
    """As state.fill, in one launch, or two where there are slots."""
    z = z if layout.evicts else None
    edges = None if cu_seqlens is None else cu_seqlens.contiguous()
    source = None
    if layout.slots:
        death = death if layout.evicts else None
        source = _listed(layout, state, k.shape[1], next, positions, death, edges)
    ring, columns = state["k"].shape[2] - layout.slots, k.shape[1]
    # Of the first tokens of an empty state, entries beyond them stay as they are.
    short = positions is None and edges is None and not layout.slots and columns < ring
    entries = columns if short else ring + layout.slots
    k, v, raw_k = _adjacent(k), _adjacent(v), None if raw_k is None else _adjacent(raw_k)
    if layout.kind != "learned":
        raw_k = None
    launch = _filler(layout, k.shape[2], k.shape[3], v.shape[3])
    rows = launch.constants["ROWS"]
    blocks = -(-entries // rows)
    launch(
        (len(state["k"]) * k.shape[2], blocks + -(-layout.raw_rows // rows)),
        *(k, v, z, raw_k, source, next.contiguous(), edges),
        *(state["k"], state["v"], state.get("z") if layout.evicts else None),
        *(state.get("raw_k"), state.get("scored")),
        *(*k.stride()[:3], *v.stride()[:3], *_strides(z, 3), *_strides(raw_k, 3)),
        *(columns, ring, entries, blocks),
    )


def _listed(
    layout: Layout,
    state: State,
    columns: int,
    next: Tensor,
    positions: Tensor | None,
    death: Tensor | None,
    edges: Tensor | None,
) -> Tensor:
    """(N, G, slots) int32: the column of the token of each slot, -1 where there is none."""
    held = state["position"]
    source = torch.empty_like(held)
    if positions is not None and positions.dim() == 2:
        positions = positions[:, None].expand(-1, held.shape[1], -1)
    _lister(layout, held.shape[1])(
        (held.shape[0] * held.shape[1],),
        *(positions, death, next.contiguous(), edges, source, held, state["folded"], columns),
        *(*_strides(positions, 3), *_strides(death, 3)),
    )
    return source


@cache
def _lister(layout: Layout, kv_heads: int) -> Launcher:
    constants = fill_cut.list_constants(layout, kv_heads)
    return Launcher(kernels.decode_list, {**constants, "num_warps": fill_cut.WARPS})


@cache
def _filler(layout: Layout, kv_heads: int, dim: int, value_dim: int) -> Launcher:
    constants = fill_cut.fill_constants(layout, kv_heads, dim, value_dim)
    return Launcher(kernels.decode_fill, {**constants, "num_warps": fill_cut.WARPS})


def _strides(x: Tensor | None, count: int) -> tuple[int, ...]:
    return (0,) * count if x is None else x.stride()[:count]


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
