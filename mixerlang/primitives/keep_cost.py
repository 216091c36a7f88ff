"""What keeps cost beside attention itself: FLOPs of choosing, bytes of the decoding cache.

Both as plain PyTorch has them; keep_kernels.py knows the cache of the kernels. KV heads with equal
keeps share a store: slots of keys, values and positions, and a score for every branch that evicts.
Branches hold more of their own: summaries of blocks, a scorer's last inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from . import keep as k
from .attention import (
    Attention,
    branches,
    leaves,
    leaves_by_heads,
    scorer_shapes,
    summaries,
)
from .base import Workload
from .keep_kernels import kernel_cache_bytes

POSITION = 8
"""Bytes of a position (int64)."""


@dataclass(frozen=True)
class Extent:
    """How many tokens a keep must hold: the newest `recent`, and `kept` more (None: all)."""

    recent: int
    kept: int | None

    def slots(self, length: int) -> int:
        """Slots for sequences of up to `length` tokens."""
        return length if self.kept is None else min(self.recent + self.kept, length)

    @property
    def size(self) -> float:
        return float("inf") if self.kept is None else self.recent + self.kept

    def __or__(self, other: Extent) -> Extent:
        everything = self.kept is None or other.kept is None
        kept = None if everything else (self.kept or 0) + (other.kept or 0)
        return Extent(max(self.recent, other.recent), kept)

    def __and__(self, other: Extent) -> Extent:
        return min(self, other, key=lambda extent: extent.size)


@dataclass(frozen=True)
class Store:
    """What KV heads with the same keep hold, for one sequence."""

    heads: int
    head_dim: int
    value_dim: int
    work: Workload

    def slots(self, count: int, values: bool = True, spread: int = 1, scores: int = 0) -> int:
        """Bytes of `count` slots with `spread` positions each, and `scores` scores per position."""
        channels = self.heads * (self.head_dim + (self.value_dim if values else 0))
        score = max(4, self.work.bytes_per_element)  # at least float32
        per_slot = channels * self.work.bytes_per_element + spread * (POSITION + scores * score)
        return count * per_slot


def keep_cache_bytes(attention: Attention, work: Workload) -> int:
    """Bytes of the cache of a bound layer, for `batch` sequences of up to `length` tokens."""
    _, kv_heads, head_dim, value_dim = attention.shape()
    keep = attention.keep
    keeps = keep.keeps if isinstance(keep, k.ByHead) else (keep,) * kv_heads
    total = 0
    for own in dict.fromkeys(keeps):
        heads = keeps.count(own)
        held = kernel_cache_bytes(own, heads, head_dim, value_dim, work) if work.kernels else None
        if held is None:
            store = Store(heads, head_dim, value_dim, work)
            held = _store_bytes(own, store) + sum(_own_bytes(leaf, store) for leaf in leaves(own))
        total += held
    return work.batch * total


def _store_bytes(keep: k.Keep, store: Store) -> int:
    parts = branches(keep)
    evicting = sum(any(isinstance(leaf, k.Learned | k.Evict) for leaf in leaves(part))
                   for part in parts)
    extent = reduce(or_, map(branch_extent, parts))
    return store.slots(
        extent.slots(store.work.length), spread=store.heads if evicting else 1, scores=evicting
    )


def branch_extent(keep: k.Keep) -> Extent:
    """What a branch must hold of tokens for later queries."""
    if isinstance(keep, k.Evict):  # alone: the query's own token and budget - 1 others
        return Extent(1, keep.budget - 1)
    blocks = [leaf for leaf in leaves(keep) if isinstance(leaf, k.Blocks)]
    unfinished = [Extent(leaf.size, 0) for leaf in blocks]  # a block that is not complete yet
    return reduce(or_, unfinished, _extent(keep))


def _extent(keep: k.Keep) -> Extent:
    match keep:
        case k.Window():
            return Extent(keep.size, 0)
        case k.Dilated():
            return Extent(keep.size * keep.rate, 0)
        case k.Sinks():
            return Extent(0, keep.count)
        case k.Learned() | k.Evict():
            return Extent(0, keep.budget)
        case k.Compressed():
            return Extent(keep.size, 0)
        case k.Union():
            return reduce(or_, map(_extent, keep.parts))
        case k.Intersection():
            return reduce(and_, map(_extent, keep.parts))
        case _:
            return Extent(0, None)


def _own_bytes(leaf: k.Keep, store: Store) -> int:
    """What a keep holds beside the tokens."""
    length = store.work.length
    if isinstance(leaf, k.Compressed):
        return store.slots(summaries(leaf, length))
    if isinstance(leaf, k.Blocks) and leaf.score != "compressed":
        return store.slots(length // leaf.size, values=False)
    if isinstance(leaf, k.Learned) and isinstance(leaf.scorer, k.Cnn):
        inputs = sum(_scorer_inputs(leaf.scorer, store))
        return store.heads * inputs * store.work.bytes_per_element
    return 0


def _scorer_inputs(scorer: k.Cnn, store: Store) -> Iterator[int]:
    """The last inputs of each layer of a head's scorer: 2 * reach of each channel."""
    shapes = scorer_shapes(scorer, store.head_dim, store.value_dim)
    for (channels, _, kernel), dilation in zip(shapes, scorer.dilations, strict=False):
        yield channels * (kernel - 1) * dilation


# ------------------------------------------------------------------------------------------- FLOPs


def keep_flops(attention: Attention, work: Workload) -> int:
    """Forward FLOPs of scorers, block summaries and block choices of a bound layer."""
    heads, kv_heads, head_dim, value_dim = attention.shape()
    macs = 0
    for leaf, own in leaves_by_heads(attention.keep, kv_heads):
        if isinstance(leaf, k.Learned) and isinstance(leaf.scorer, k.Cnn):
            shapes = scorer_shapes(leaf.scorer, head_dim, value_dim)
            macs += work.length * own * sum(cin * cout * kernel for cin, cout, kernel in shapes)
        elif isinstance(leaf, k.Compressed) and isinstance(leaf.map, k.MlpMap):
            maps = sum(map_macs(leaf.size, leaf.map.expand, dim) for dim in (head_dim, value_dim))
            macs += summaries(leaf, work.length) * own * maps
        elif isinstance(leaf, k.Blocks):
            queries = own * heads // kv_heads
            macs += _choice_macs(leaf, attention.keep, own, queries, head_dim, work.length)
    return 2 * work.batch * macs


def map_macs(size: int, expand: int, dim: int) -> int:
    """Of the summary of one block by an mlp."""
    return (size * dim + dim) * expand * dim


def _choice_macs(
    blocks: k.Blocks, keep: k.Keep, heads: int, queries: int, head_dim: int, length: int
) -> int:
    """Scores of every query on block summaries, then their sums per block and KV head."""
    count, macs = length // blocks.size, 0
    if blocks.score == "compressed":
        count = sum(summaries(part, length) for part in branches(keep)
                    if isinstance(part, k.Compressed))
    else:
        macs += length * queries * count * head_dim
        macs += heads * count * map_macs(blocks.size, 1, head_dim) * (blocks.score == "mlp")
    return macs + length * heads * count * -(-length // blocks.size)
