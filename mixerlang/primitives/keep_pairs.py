"""How many pairs of query and key a keep makes visible: what attention usefully computes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from math import lcm

from ..algebra import Count, ceil_div, exact_div, greatest, least
from . import keep as k
from .attention import leaves, summaries

MOST_TERMS = 10
"""Of a union over positions; inclusion and exclusion takes 2 to this power sums."""


@dataclass(frozen=True)
class Pairs:
    """bound: whether the number depends on the data, and `count` is the most that it can be."""

    count: Count
    bound: bool = False


def visible_pairs(keep: k.Keep, length: Count, training: bool = False) -> Pairs:
    """Of a branch (no `gated`, no `by_head`), among `length` tokens of a sequence and KV head."""
    everything = past(length)
    evicting: list[k.Learned | k.Evict] = [
        leaf for leaf in leaves(keep) if isinstance(leaf, k.Learned | k.Evict)
    ]
    if evicting:
        return _beside_eviction(keep, evicting[0], length, training)
    if isinstance(keep, k.Compressed):
        return Pairs(_summary_pairs(keep, length))
    if isinstance(keep, k.Blocks):
        return Pairs(_block_pairs(keep, length))
    terms = _terms(keep)
    if terms is not None and len(terms) <= MOST_TERMS:
        return Pairs(_union_pairs(terms, length))
    return Pairs(least(everything, _bound(keep, length)), bound=True)


def past(length: Count) -> Count:
    """Pairs where every query sees all of the past."""
    return exact_div(length * (length + 1), 2)


def near(count: Count, length: Count, step: int = 1) -> Count:
    """Pairs at the `count` <= length / step distances 0, step, 2 step, ..."""
    return count * length - step * exact_div(count * (count - 1), 2)


# ----------------------------------------------------------------------- expressions over positions


@dataclass(frozen=True)
class Term:
    """The keys j with t - j < window, where rate divides t - j, and j < sinks; None: any."""

    window: Count | None = None
    rate: int = 1
    sinks: Count | None = None

    def __and__(self, other: Term) -> Term:
        window = _smaller(self.window, other.window)
        return Term(window, lcm(self.rate, other.rate), _smaller(self.sinks, other.sinks))

    def inside(self, other: Term) -> bool:
        return self & other == self

    def pairs(self, length: Count) -> Count:
        """All, less those of keys that are no sinks, whose queries begin as late as they do."""
        total = self._of_any_key(length)
        if self.sinks is None:
            return total
        return total - self._of_any_key(greatest(0, length - self.sinks))

    def _of_any_key(self, length: Count) -> Count:
        count = ceil_div(length, self.rate)
        if self.window is not None:
            count = least(count, ceil_div(self.window, self.rate))
        return near(count, length, self.rate)


def _smaller(a: Count | None, b: Count | None) -> Count | None:
    if a is None or b is None:
        return b if a is None else a
    return least(a, b)


def _terms(keep: k.Keep) -> frozenset[Term] | None:
    """A keep as a union of terms, none inside another; None where the data choose."""
    match keep:
        case k.Full():
            return frozenset({Term()})
        case k.Window():
            return frozenset({Term(window=keep.size)})
        case k.Dilated():
            return frozenset({Term(keep.size * keep.rate, keep.rate)})
        case k.Strided():
            return frozenset({Term(rate=keep.stride)})
        case k.Sinks():
            return frozenset({Term(sinks=keep.count)})
        case k.Union():
            return _alone(map(_terms, keep.parts))
        case k.Intersection():
            parts = [_terms(part) for part in keep.parts]
            if any(part is None for part in parts):
                return None
            products = {Term()}
            for part in parts:
                products = {a & b for a in products for b in part or ()}
            return _alone([frozenset(products)])
        case _:
            return None


def _alone(parts: Iterable[frozenset[Term] | None]) -> frozenset[Term] | None:
    """The union of sets of terms, without those inside others."""
    found: set[Term] = set()
    for part in parts:
        if part is None:
            return None
        found |= part
    return frozenset(a for a in found if not any(a != b and a.inside(b) for b in found))


def _union_pairs(terms: frozenset[Term], length: Count) -> Count:
    """By inclusion and exclusion."""
    total: Count = 0
    for size in range(1, len(terms) + 1):
        for chosen in combinations(sorted(terms, key=repr), size):
            both = reduce(Term.__and__, chosen)
            total = total + (1 if size % 2 else -1) * both.pairs(length)
    return total


# ------------------------------------------------------------------------- what is not by position


def _beside_eviction(
    keep: k.Keep, evicting: k.Learned | k.Evict, length: Count, training: bool
) -> Pairs:
    """The window and, of what left it, the budget: always full without weights, at most for a
    learned one. In training nothing is evicted, unless a learned budget is capped."""
    learned = isinstance(evicting, k.Learned)
    if training and not getattr(evicting, "capped", False):
        return Pairs(past(length), bound=learned)
    window = next((leaf.size for leaf in leaves(keep) if isinstance(leaf, k.Window)), 0)
    budget = evicting.budget if window else evicting.budget - 1  # alone: the query's own counts
    count = kept_pairs(length, window or 1, budget)
    return Pairs(count, bound=learned)


def kept_pairs(length: Count, window: Count, budget: Count) -> Count:
    """A window, and up to `budget` of the keys that left it."""
    left = greatest(0, length - window)
    slots = least(budget, left)
    outside = exact_div(slots * (slots + 1), 2) + slots * (left - slots)
    return near(least(window, length), length) + outside


def _summary_pairs(keep: k.Compressed, length: Count) -> Count:
    """Each summary is seen from its last token on."""
    count = summaries(keep, length)
    return near(count, length - keep.size + 1, keep.stride or keep.size)


def _block_pairs(keep: k.Blocks, length: Count) -> Count:
    """`top` blocks, or as many as there are; of its own a query sees what is there."""
    blocks = length // keep.size
    rest = length - blocks * keep.size
    return (
        keep.size * keep.size * _others(keep.top, blocks)
        + blocks * exact_div(keep.size * (keep.size + 1), 2)
        + rest * keep.size * least(keep.top - 1, blocks)
        + exact_div(rest * (rest + 1), 2)
    )


def _others(top: Count, blocks: Count) -> Count:
    """Blocks beside its own that a query of each block sees, in sum over the blocks."""
    few = least(top, blocks)
    return exact_div(few * (few - 1), 2) + (blocks - few) * (top - 1)


def _bound(keep: k.Keep, length: Count) -> Count:
    """At most, where the data choose among others."""
    match keep:
        case k.Union():
            return sum((_bound(part, length) for part in keep.parts), 0)
        case k.Intersection():
            return reduce(least, (_bound(part, length) for part in keep.parts))
        case _:
            return visible_pairs(keep, length).count
