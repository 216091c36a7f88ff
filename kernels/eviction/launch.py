"""Launch the eviction kernels on CUDA tensors; shapes as in op.py.

Nothing here waits for the device: how many tokens compete is looked at by the kernels alone, and
where no sequence exceeds the budget those that order tokens leave at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..attention.intervals import SEGMENT
from ..launcher import Launcher
from . import compact, fates, order
from .cut import KERNELS, LENGTH, PLACED, SPAN, Cut, constants, cut, options


class Ordered(NamedTuple):
    """What orders the tokens; where a sequence does not exceed the budget, unwritten but for over.

    over: (rows, blocks) int32, whether a block's sequence does. ranked: (rows, blocks, block) keys;
    within: (rows, blocks, slots), before: (rows, runs, slots) keys; held: positions, int32.
    """

    over: Tensor
    ranked: Tensor
    within: Tensor
    before: Tensor
    held: Tensor


def intervals(
    z: Tensor,
    window: int,
    budget: int | None,
    sinks: int,
    floor: float,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of Intervals; without a budget the last two have no columns."""
    z = z.contiguous()
    batch, heads, tokens = z.shape
    sequences = 1 if cu_seqlens is None else len(cu_seqlens) - 1
    work = cut(batch * heads, tokens, budget, sequences)
    table = None if cu_seqlens is None else place_blocks(cu_seqlens, work)
    death, count = integers(z, *z.shape), integers(z, work.rows, work.blocks)
    sizes = (work.blocks, tokens)
    scored = (z, table, death, count, *sizes, window, sinks, floor)
    _launch("count_competing", work, work.blocks, *scored)
    if budget is None:
        kept, counts, _ = list_kept(table, death, count, work, window)
        return death, kept, counts, integers(z, 0), integers(z, 0)
    over, ranked, within, before, held = order_tokens(z, table, count, work, budget, sinks, floor)
    rule = (*sizes, budget, LENGTH, window)
    number = torch.empty_like(count)
    ranks = (over, ranked, within, before)
    _launch("find_deaths", work, work.blocks, table, count, *ranks, death, number, *rule)
    kept, counts, earlier = list_kept(table, death, number, work, window)
    segments = counts.shape[-1] - 1
    snapshots = integers(z, batch, heads, segments, budget)
    alive = integers(z, batch, heads, segments)
    listed = (kept, counts, earlier, held, snapshots, alive)
    programs = work.blocks * (work.block // SEGMENT)
    _launch("list_slots", work, programs, table, over, death, *listed, *rule)
    return death, kept, counts, snapshots, alive


def place_blocks(cu_seqlens: Tensor, work: Cut) -> Tensor:
    """Where the blocks of packed sequences lie: (blocks, 5) int32, see keys.place."""
    table, edges = integers(cu_seqlens, work.blocks, 5), cu_seqlens.contiguous()
    programs = -(-work.blocks // PLACED)
    _launch("place_blocks", work._replace(rows=1), programs, edges, table, len(edges) - 1,
            work.blocks)
    return table


def order_tokens(
    z: Tensor,
    table: Tensor | None,
    count: Tensor,
    work: Cut,
    budget: int,
    sinks: int,
    floor: float,
) -> Ordered:
    """Sorted blocks, and the best tokens at the head of each block and run."""

    def keys(lists: int, width: int = work.slots) -> Tensor:
        return z.new_empty((work.rows, lists, width), dtype=torch.int64)

    blocks, runs, spans = work.blocks, work.runs, work.spans
    sizes, unit = (work.blocks, work.tokens), LENGTH * SPAN
    over, ranked = torch.empty_like(count), keys(blocks, work.block)
    sorting = (z, table, count, over, ranked, *sizes, budget, sinks, floor)
    _launch("sort_blocks", work, blocks, *sorting)
    within, whole, before = keys(blocks), keys(runs), keys(runs)
    held, base = torch.empty_like(before, dtype=torch.int32), None
    _launch("merge_runs", work, runs, table, over, ranked, within, whole, *sizes, 1, LENGTH)
    if spans > 1:
        wide, best, base = work._replace(block=work.slots), keys(spans), keys(spans)
        joined = (table, over, whole, None, best)
        _launch("merge_runs", wide, spans, *joined, *sizes, LENGTH, SPAN)
        joined = (table, over, best, None, base)
        _launch("merge_across", work, spans, *joined, None, *sizes, budget, unit, 1)
    across = (whole, base, before, held)
    _launch("merge_across", work, runs, table, over, *across, *sizes, budget, LENGTH, SPAN)
    return Ordered(over, ranked, within, before, held)


def list_kept(
    table: Tensor | None, death: Tensor, number: Tensor, work: Cut, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """kept and counts of Intervals, and how many are kept before each block."""
    batch, heads, tokens = death.shape
    kept, earlier = torch.empty_like(death), torch.empty_like(number)
    counts = integers(death, batch, heads, -(-tokens // SEGMENT) + 1)
    listed = (table, death, number, kept, counts, earlier, work.blocks, tokens, window)
    _launch("list_kept", work, work.blocks, *listed)
    return kept, counts, earlier


def integers(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.int32)


MODULES = {"compact": compact, "fates": fates, "order": order}


def _launch(name: str, work: Cut, programs: int, *arguments: Any) -> None:
    """`programs` of them for each row."""
    _launcher(name, work.slots, work.block)((work.rows * programs,), *arguments)


@cache
def _launcher(name: str, slots: int, block: int) -> Launcher:
    kernel = getattr(MODULES[KERNELS[name][0]], name)
    return Launcher(kernel, constants(name, slots, block) | options(name, slots))
