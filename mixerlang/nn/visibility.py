"""The algebra of keeps whose answer depends on positions and chosen blocks alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

import torch
from torch import Tensor

from ..kernels.attention import reference
from .keeps import (
    Blocks,
    Compressed,
    Dilated,
    Evict,
    Full,
    Intersection,
    Keep,
    Learned,
    Sinks,
    Strided,
    Union,
    Window,
)


@dataclass(frozen=True)
class Extent:
    """How many tokens a keep must hold: the newest `recent`, and `kept` more (None: all)."""

    recent: int
    kept: int | None

    def slots(self, max_length: int | None) -> int | None:
        """Slots for sequences of up to `max_length` tokens; None where nothing bounds them."""
        if self.kept is None:
            return max_length
        total = self.recent + self.kept
        return total if max_length is None else min(total, max_length)

    def __or__(self, other: Extent) -> Extent:
        everything = self.kept is None or other.kept is None
        kept = None if everything else (self.kept or 0) + (other.kept or 0)
        return Extent(max(self.recent, other.recent), kept)

    def __and__(self, other: Extent) -> Extent:
        return min(self, other, key=lambda extent: extent.size)

    @property
    def size(self) -> float:
        return float("inf") if self.kept is None else self.recent + self.kept


def extent(keep: Keep) -> Extent:
    """What must be held for later queries."""
    match keep:
        case Window(size):
            return Extent(size, 0)
        case Dilated(size, rate):
            return Extent(size * rate, 0)
        case Sinks(count):
            return Extent(0, count)
        case Learned(budget=budget) | Evict(budget=budget):
            return Extent(0, budget)
        case Compressed(size):
            return Extent(size, 0)
        case Union(parts):
            return reduce(or_, map(extent, parts))
        case Intersection(parts):
            return reduce(and_, map(extent, parts))
        case Full() | Strided() | Blocks():
            return Extent(0, None)
        case _:
            raise TypeError(f"{keep} has no extent of its own")


def visible(keep: Keep, t: Tensor, j: Tensor, blocks: Iterator[Tensor]) -> Tensor:
    """Which keys of the past a query sees, (N, P, T, S), from t (N, 1, T, 1) and j (N, P, 1, S).

    blocks: what each `Blocks` of the expression chose, from left to right.
    """
    match keep:
        case Full():
            return torch.ones_like(t, dtype=torch.bool) & torch.ones_like(j, dtype=torch.bool)
        case Window(size):
            return reference.see_window(t, j, size)
        case Sinks(count):
            return reference.see_sinks(t, j, count)
        case Strided(stride):
            return reference.see_strided(t, j, stride)
        case Dilated(size, rate):
            return reference.see_dilated(t, j, size, rate)
        case Blocks(size):
            return reference.see_blocks(next(blocks), j, size)
        case Union(parts):
            return reduce(or_, [visible(part, t, j, blocks) for part in parts])
        case Intersection(parts):
            return reduce(and_, [visible(part, t, j, blocks) for part in parts])
        case _:
            raise TypeError(f"{keep} does not depend on positions alone")


def retained(keep: Keep, j: Tensor, last: Tensor) -> Tensor:
    """Which keys j some query after `last` may still see; they broadcast."""
    match keep:
        case Window(size):
            return last - j < size
        case Dilated(size, rate):
            return last - j < size * rate
        case Sinks(count):
            return j < count
        case Union(parts):
            return reduce(or_, [retained(part, j, last) for part in parts])
        case Intersection(parts):
            return reduce(and_, [retained(part, j, last) for part in parts])
        case _:
            return torch.ones_like(j, dtype=torch.bool)
