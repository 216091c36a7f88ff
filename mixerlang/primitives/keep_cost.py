"""What keeps hold for decoding, in bytes.

As plain PyTorch has them; keep_kernels.py knows the cache of the kernels. KV heads with equal
keeps share a store: slots of keys, values and positions, and a score for every branch that evicts.
Branches hold more of their own: summaries of blocks, a scorer's last inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, or_

from ..algebra import Count, greatest, least
from . import keep as k
from .attention import (
    Attention,
    branches,
    leaves,
    scorer_shapes,
    summaries,
)
from .keep_kernels import kernel_cache_bytes
from .part import Workload

POSITION = 8
"""Bytes of a position (int64)."""


@dataclass(frozen=True)
class Extent:
    """How many tokens a keep must hold: the newest `recent`, and `kept` more (None: all)."""

    recent: Count
    kept: Count | None

    def slots(self, length: Count) -> Count:
        """Slots for sequences of up to `length` tokens."""
        return length if self.kept is None else least(self.recent + self.kept, length)

    def __or__(self, other: Extent) -> Extent:
        everything = self.kept is None or other.kept is None
        kept = None if everything else (self.kept or 0) + (other.kept or 0)
        return Extent(greatest(self.recent, other.recent), kept)

    def __and__(self, other: Extent) -> Extent:
        """The smaller of the two."""
        if self.kept is None or other.kept is None:
            return other if self.kept is None else self
        own, others = self.recent + self.kept, other.recent + other.kept
        if isinstance(own, int) and isinstance(others, int):
            return self if own <= others else other
        return Extent(0, least(own, others))


@dataclass(frozen=True)
class Store:
    """What KV heads with the same keep hold, for one sequence. bare: keys and values alone."""

    heads: int
    head_dim: int
    value_dim: int
    work: Workload
    bare: bool = False

    def slots(self, count: Count, values: bool = True, spread: int = 1, scores: int = 0) -> Count:
        """Bytes of `count` slots with `spread` positions each, and `scores` scores per position."""
        channels = self.heads * (self.head_dim + (self.value_dim if values else 0))
        score = max(4, self.work.bytes_per_element)  # at least float32
        beside = 0 if self.bare else spread * (POSITION + scores * score)
        return count * (channels * self.work.bytes_per_element + beside)


def keep_cache_bytes(attention: Attention, work: Workload) -> Count:
    """Bytes of the cache of a bound layer, for `batch` sequences of up to `length` tokens."""
    return _cache_bytes(attention, work, bare=False)


def keep_bound_bytes(attention: Attention, work: Workload) -> Count:
    """Bytes of what the definition alone must hold: without positions, scores and slack."""
    return _cache_bytes(attention, replace(work, kernels=False), bare=True)


def _cache_bytes(attention: Attention, work: Workload, bare: bool) -> Count:
    _, kv_heads, head_dim, value_dim = attention.shape()
    keep = attention.keep
    keeps = keep.keeps if isinstance(keep, k.ByHead) else (keep,) * kv_heads
    total: Count = 0
    for own in dict.fromkeys(keeps):
        heads = keeps.count(own)
        held = kernel_cache_bytes(own, heads, head_dim, value_dim, work) if work.kernels else None
        if held is None:
            store = Store(heads, head_dim, value_dim, work, bare)
            held = _store_bytes(own, store) + sum(_own_bytes(leaf, store) for leaf in leaves(own))
        total = total + held
    return work.batch * total


def _store_bytes(keep: k.Keep, store: Store) -> Count:
    parts = branches(keep)
    evicting = sum(
        any(isinstance(leaf, k.Learned | k.Evict) for leaf in leaves(part)) for part in parts
    )
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


def _own_bytes(leaf: k.Keep, store: Store) -> Count:
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
