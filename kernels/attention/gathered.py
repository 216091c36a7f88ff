"""Launch the backward passes over kept keys: what queries beyond the window give to them.

A key is seen by consecutive queries. Those that have it in their window come to it with its
neighbours: `backward_kv`, as if nothing were kept. For the others, `backward_gathered` takes the
keys that queries of a run of segments see, a block of them per program: those in the slots when the
run begins, then those kept of its own segments. What it finds for the latter it writes in place,
for the former in rows of the run, in float32. `backward_held` sums these rows over the runs, in
order, and adds them in place; at last `backward_kv` adds its part. No two programs write one row,
so that the result is the same every time.

Shapes as in launch.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..launcher import Launcher
from ..sequences import bounds
from .call import Extras
from .intervals import SEGMENT
from .launch import grid, launcher, per_head, strides
from .variant import Tile, Variant


def found(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Tensor,
    dk: Tensor,
    dv: Tensor,
    variant: Variant,
    extras: Extras,
    tiles: Mapping[str, Tile] | None = None,
    tf32: bool = False,
    run: int | None = None,
) -> None:
    """Write the rows of dk and dv whose keys are kept."""
    assert variant.window is not None
    tokens, budget, tiles = q.shape[1], variant.budget or 0, tiles or {}
    segments = -(-(tokens - variant.window) // SEGMENT)  # of keys that leave the window
    if segments < 1:
        return
    lists, group = k.shape[0] * k.shape[2], variant.group
    run = (run or run_length(segments, lists, group, budget)) if budget else segments
    runs = -(-segments // run)
    lead = (k.shape[0], k.shape[2], runs, budget)
    held = [k.new_empty(*lead, x.shape[-1], dtype=torch.float32) for x in (k, v) if budget]
    spans = [x for x in extras[4:] if x is not None]
    ends = bounds(extras.cu_seqlens, tokens)[1:2]

    launch = _launcher("backward_gathered", variant, q, tiles, tf32)
    most = min(run * SEGMENT, tokens) + budget
    blocks, batch = grid(launch.constants["BLOCK_K"], most, k.shape[2], k.shape[0])
    launch(
        (blocks, runs, batch),
        *(q, k, v, do, pairs, dk, dv, *spans, *held, *ends, *per_head(extras)),
        *(*strides(q, k, v, do, dk, dv), pairs.stride(1), tokens, run),
    )
    if runs > 1 and budget:
        death, slots = spans[0], spans[3:]
        launch = _launcher("backward_held", variant, q, tiles)
        blocks, batch = grid(launch.constants["BLOCK_K"], budget, k.shape[2], k.shape[0])
        launch(
            (blocks, runs - 1, batch),
            *(dk, dv, *held, death, *slots, *ends, *strides(dk, dv), tokens, run),
        )


def run_length(segments: int, lists: int, group: int, budget: int) -> int:
    """Segments per run, of `lists` lists, each read by `group` query heads.

    Fewer store more rows of slots; more walk more keys that died on the way, and leave long
    programs to wait for at the end. Such sums are least at a root: half of it, as measured on an
    H100 (4k to 128k tokens, 16 heads of their own keys and 32 that share 8).
    """
    return max(4, min(64, round(math.sqrt(segments * lists / group) / 2)), budget // 64)


def _launcher(
    name: str, variant: Variant, q: Tensor, tiles: Mapping[str, Tile], tf32: bool = False
) -> Launcher:
    return launcher(name, variant, q, tiles.get(name), tf32)
