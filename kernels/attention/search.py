"""Search tiles of attention kernels on the GPU at hand: build each, check what it writes, time it.

Shapes as in launch.py. A tile that miscompiles must not win, so that every tile's outputs are
compared with those of the tile that ships.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import ahead as building
from ..eviction.op import intervals
from . import ahead, gathered, launch
from .call import Extras
from .variant import Tile, Variant

SEARCHED = ("forward", "backward_q", "backward_gathered", "backward_held", "backward_kv")
"""Passes whose tiles are worth a search."""

TOLERANCE = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5}
"""How far a right tile may be from the shipped one, relative to the norm."""

FLUSH = 1 << 28
"""Bytes written between two timings, more than any L2 holds."""


class Found(NamedTuple):
    """A tile that was right, and the milliseconds of one pass under graph replay."""

    tile: Tile
    ms: float


@dataclass(frozen=True)
class Example:
    """Inputs and results of one call, from the tiles that ship."""

    variant: Variant
    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor
    o: Tensor
    lse: Tensor
    pairs: Tensor
    extras: Extras

    def run(self, name: str, tile: Tile | None = None) -> tuple[Tensor, ...]:
        """What one pass writes."""
        q, k, v, do, extras, variant = self.q, self.k, self.v, self.do, self.extras, self.variant
        if name == "forward":
            return launch.forward(q, k, v, variant, extras, tile)
        if name == "backward_q":
            return launch.backward_q(do, q, k, v, self.o, self.lse, None, variant, extras, tile)
        if name == "backward_kv":
            return launch.backward_kv(do, q, k, v, self.pairs, variant, extras, tile)
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        tiles = None if tile is None else {name: tile}
        gathered.found(do, q, k, v, self.pairs, dk, dv, variant, extras, tiles)
        return dk, dv


def example(variant: Variant, dtype: torch.dtype, tokens: int, seed: int = 0) -> Example:
    """One sequence of `tokens`, normally distributed; a budget is always full."""
    torch.manual_seed(seed)
    draw = partial(torch.randn, device="cuda", dtype=torch.float32)
    shapes = (
        (variant.heads, variant.head_dim),
        (variant.kv_heads, variant.head_dim),
        (variant.kv_heads, variant.value_dim),
        (variant.heads, variant.value_dim),
    )
    q, k, v, do = (draw(1, tokens, *shape).to(dtype) for shape in shapes)
    extras = _extras(variant, tokens)
    o, lse = launch.forward(q, k, v, variant, extras)
    _, pairs = launch.backward_q(do, q, k, v, o, lse, None, variant, extras)
    return Example(variant, q, k, v, do, o, lse, pairs, extras)


def _extras(variant: Variant, tokens: int) -> Extras:
    z = torch.rand(1, variant.kv_heads, tokens, device="cuda")
    kept = None
    if variant.intervals:
        assert variant.window is not None
        floor = 0.0 if variant.budget else 7 / 8  # unbounded, one in eight stays
        kept = intervals(z, window=variant.window, budget=variant.budget, floor=floor)
    heads = torch.rand(variant.heads, device="cuda")
    return Extras(
        z if variant.score_grad else None,
        heads if variant.sink_logits else None,
        heads / 16 if variant.slopes else None,
        None,
        *(kept or ()),
    )


# ------------------------------------------------------------------------------------- candidates


def candidates(name: str, dim: int, dtype: str) -> list[Tile]:
    """Tiles worth compiling; float32 runs on the plain cores, where a thread holds far less."""
    if name == "backward_held":  # no products: rows of a block, and nothing else
        return [Tile(rows, 16, warps, 1) for rows in (16, 32, 64) for warps in (4, 8)]
    if dtype == "float32":
        sides = itertools.product([16, 32, 64], [16, 32], [4, 8], [1, 2])
        return [Tile(*parts) for parts in sides if parts[0] * dim <= 1024 * parts[2]]
    sides = itertools.product([64, 128], [32, 64, 128], [4, 8], [2, 3, 4])
    tiles = [tile for parts in sides if _plausible(name, dim, tile := Tile(*parts))]
    bounded = [replace(tile, registers=128) for tile in tiles if tile.warps == 4 and dim <= 64]
    return tiles + bounded


def _plausible(name: str, dim: int, tile: Tile) -> bool:
    """Accumulators and scores within the registers, at most three stages in the backward."""
    if tile.warps == 8 and tile.own == 64 and dim <= 128:
        return False
    forward = name == "forward"
    accumulators = (1 if name in ("forward", "backward_q") else 2) * tile.own * dim
    scores = (1.5 if forward else 2.5) * tile.own * tile.step
    if (accumulators + scores) / (32 * tile.warps) > 230:
        return False
    return tile.stages <= (4 if forward else 3)


def buildable(jobs: Sequence[building.Job], architecture: str, pool: Executor) -> list[bool]:
    """Which jobs fit the GPU without a spill; building them also fills Triton's cache."""
    return list(pool.map(partial(_fits, architecture), jobs, chunksize=1))


def _fits(architecture: str, job: building.Job) -> bool:
    try:
        compiled = building.build(job, architecture)
    except Exception:  # whatever the compilers raise of a tile that is too large
        return False
    found = building.resources(compiled)
    limit = building.LIMITS[architecture]
    return not found.spilled and found.shared <= limit and not building.miscompiles(compiled)


# ----------------------------------------------------------------------------------------- search


def search(
    name: str, call: Example, architecture: str, pool: Executor, tiles: Iterable[Tile] | None = None
) -> list[Found]:
    """The tiles of a pass that are right, the fastest first."""
    dtype = str(call.q.dtype).removeprefix("torch.")
    variant = call.variant
    dim = max(variant.head_dim, variant.value_dim)
    tiles = list(tiles or candidates(name, dim, dtype))
    jobs = [ahead.job(name, variant, dtype, architecture, tile) for tile in tiles]
    fitting = itertools.compress(tiles, buildable(jobs, architecture, pool))
    expected = call.run(name)
    right = [tile for tile in fitting if _agrees(call.run(name, tile), expected, TOLERANCE[dtype])]
    found = [Found(tile, graph_time(partial(call.run, name, tile))) for tile in right]
    return sorted(found, key=lambda each: each.ms)


def best(name: str, call: Example, architecture: str, pool: Executor) -> Found | None:
    """The fastest tile of a pass; None where no candidate is right."""
    return next(iter(search(name, call, architecture, pool)), None)


def _agrees(got: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float) -> bool:
    pairs = [(a.float(), b.float()) for a, b in zip(got, expected, strict=True) if b.numel()]
    return all(bool((a - b).norm() <= tolerance * b.norm()) for a, b in pairs)


def shipped(name: str, call: Example) -> float:
    """Milliseconds of the tile that is in use."""
    return graph_time(partial(call.run, name))


def graph_time(call: Callable[[], object], repeats: int = 12) -> float:
    """Median ms of one replay of the captured call, the L2 emptied before each."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    flush = torch.empty(FLUSH, dtype=torch.int8, device="cuda")
    times = sorted(_replays(graph, flush, repeats))
    return times[len(times) // 2]


def _replays(graph: torch.cuda.CUDAGraph, flush: Tensor, repeats: int) -> Iterator[float]:
    event: Callable[..., Any] = torch.cuda.Event
    events = [[event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for before, after in events:
        flush.zero_()
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    for before, after in events:
        yield before.elapsed_time(after)
