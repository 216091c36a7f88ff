"""What runs a softmax on a GPU: the one place where layers and the compiler look it up.

Data alone, without torch: the compiler asks before there is a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import inf, lcm

from ..kernels.attention.variant import MAX_HEAD_DIM
from ..kernels.decode.layout import Layout
from ..kernels.scorer.network import MAX_LOOKAHEAD
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
    leaves,
)

MAX_BUDGET = 8192
"""Slots per KV head that the eviction kernels serve."""

SPAN = 8
"""New tokens per sequence that one step over a cache takes, where the window allows it."""

BEYOND = 2**30
"""Tokens that no sequence reaches: a window or sinks of as many are all of the past. The kernels
count positions, and what they add to them, in 32 bits."""

MAX_TERMS = 8
"""Of an expression of `|` and `&`, once terms inside others are gone; more are left alone."""


@dataclass(frozen=True)
class Reach:
    """The keys j <= t that a query at t sees: (t - j < window and (t - j) mod rate = 0), or
    j < sinks, or (strided and (t - j) mod strided = 0). Window None: all of them."""

    window: int | None = None
    rate: int = 1
    sinks: int = 0
    strided: int = 0


@dataclass(frozen=True)
class Route:
    """op: `sdpa`, PyTorch's own kernels (those of attention where sequences are packed);
    `attention`, the kernels over a reach; `intervals`, the same with eviction; `eager`, the layers
    as plain PyTorch, for this `reason`."""

    op: str
    reach: Reach | None = None
    reason: str | None = None


def route(keep: Keep, head_dim: int, value_dim: int, plain: bool = True) -> Route:
    """What runs a branch: a keep without `gated` and `by_head`.

    plain: whether the softmax has no softcap, sink logits or ALiBi slopes.
    """
    reason = _why_eager(keep, head_dim, value_dim)
    if reason is not None:
        return Route("eager", reason=reason)
    if any(isinstance(leaf, Learned | Evict) for leaf in leaves(keep)):
        return _beside_eviction(keep)
    found = reach(keep)
    if found is None:
        reason = "no kernel serves this set of keys: it is not one window, sinks and one stride"
        return Route("eager", reason=reason)
    return Route("sdpa" if plain and found == Reach() else "attention", found)


def _beside_eviction(keep: Keep) -> Route:
    """The window beside an eviction; where there is none, of the query's own token."""
    window = next((leaf.size for leaf in leaves(keep) if isinstance(leaf, Window)), 1)
    if window >= BEYOND:
        reason = f"a window of {window}: beside eviction the kernels serve fewer than {BEYOND}"
        return Route("eager", reason=reason)
    return Route("intervals", Reach(window=window))


def layout(keep: Keep) -> Layout | None:
    """What a cache holds for a branch that `route` gives to kernels; None where only the store of
    plain PyTorch can hold it: steps of a learned eviction run on a window past the look-ahead."""
    for leaf in leaves(keep):
        if isinstance(leaf, Learned | Evict):
            return _evicting(keep, leaf)
    found = reach(keep)
    if found is None:
        return None
    return Layout(found.window, 0, found.sinks, "plain", found.rate, found.strided, span=SPAN)


def _evicting(keep: Keep, leaf: Learned | Evict) -> Layout | None:
    sizes = [part.size for part in leaves(keep) if isinstance(part, Window)]
    window = sizes[0] if sizes else 1
    if isinstance(leaf, Evict):
        if leaf.policy in ("tova", "h2o"):
            return None
        budget = leaf.budget if sizes else leaf.budget - 1  # alone: the query's own token counts
        if budget == 0:
            return Layout(window, span=SPAN)
        return Layout(window, budget, 0, leaf.policy, span=SPAN)
    ahead = leaf.scorer.lookahead
    span = min(SPAN, (window - ahead + 1) // 3)  # as Layout asks for
    if span < 1:
        return None
    return Layout(window, leaf.budget, leaf.sinks, "learned", lookahead=ahead, span=span)


def _why_eager(keep: Keep, head_dim: int, value_dim: int) -> str | None:
    """What no kernel serves whatever the rest of the keep is."""
    widest = max(head_dim, value_dim)
    if widest > MAX_HEAD_DIM:
        return f"heads of {widest} channels: the kernels serve up to {MAX_HEAD_DIM}"
    for leaf in leaves(keep):
        match leaf:
            case Compressed():
                return "summaries of blocks have no kernel yet"
            case Blocks():
                return "chosen blocks have no kernel yet"
            case Evict(policy="tova" | "h2o" as policy):
                return f"evict({policy}) follows the attention itself, query by query"
            case Learned(scorer=scorer) if scorer.lookahead > MAX_LOOKAHEAD:
                ahead = scorer.lookahead
                return f"scores read {ahead} tokens ahead: the kernels serve up to {MAX_LOOKAHEAD}"
            case Learned(budget=budget) | Evict(budget=budget) if budget > MAX_BUDGET:
                return f"a budget of {budget}: the kernels serve up to {MAX_BUDGET}"
    return None


def reach(keep: Keep) -> Reach | None:
    """An expression over positions as a reach; None where it is none."""
    terms = _terms(keep)
    if terms is None:
        return None
    near = [term for term in terms if isinstance(term, _Near)]
    windows = [term for term in near if term.window < inf]
    strides = [term for term in near if term.window == inf]
    sinks = sum(term.count for term in terms if isinstance(term, Sinks))
    if _EVERYTHING in near:
        return Reach()
    if not near or len(windows) > 1 or len(strides) > 1:
        return None
    window = windows[0] if windows else _Near(1)  # a stride holds the query itself
    strided = strides[0].rate if strides else 0
    return Reach(int(window.window), window.rate, sinks, strided)


# -------------------------------------------------------------------------- a union of plain terms


@dataclass(frozen=True)
class _Near:
    """t - j < window and (t - j) mod rate = 0."""

    window: float
    rate: int = 1

    def simple(self) -> _Near:
        """The query itself has many spellings."""
        return _Near(1) if self.window <= self.rate else self


def _near(window: int, rate: int = 1) -> _Near:
    near = _Near(window, rate).simple()
    return near if near.window < BEYOND else _Near(inf, rate)


_EVERYTHING = _Near(inf)

_Term = _Near | Sinks


def _terms(keep: Keep) -> frozenset[_Term] | None:
    """A keep as a union of terms, none inside another; None where there is no such union."""
    match keep:
        case Full():
            return frozenset({_EVERYTHING})
        case Window(size):
            return frozenset({_near(size)})
        case Dilated(size, rate):
            return frozenset({_near(size * rate, rate)})
        case Strided(stride):
            return frozenset({_Near(inf, stride)})
        case Sinks(count):
            return frozenset({keep if count < BEYOND else _EVERYTHING})
        case Union(parts):
            return reduce(_union, map(_terms, parts))
        case Intersection(parts):
            return reduce(_intersection, map(_terms, parts))
        case _:
            return None


_Terms = frozenset[_Term] | None


def _union(a: _Terms, b: _Terms) -> _Terms:
    if a is None or b is None:
        return None
    terms = a | b
    left = frozenset(t for t in terms if not any(t != o and _inside(t, o) for o in terms))
    return left if len(left) <= MAX_TERMS else None


def _inside(a: _Term, b: _Term) -> bool:
    """Whether a sees no key that b does not."""
    if isinstance(a, Sinks):
        return b == _EVERYTHING or (isinstance(b, Sinks) and a.count <= b.count)
    return isinstance(b, _Near) and a.window <= b.window and (a == _Near(1) or a.rate % b.rate == 0)


def _intersection(a: _Terms, b: _Terms) -> _Terms:
    if a is None or b is None:
        return None
    found: _Terms = frozenset()
    for left in a:
        for right in b:
            found = _union(found, _both(left, right))
    return found


def _both(a: _Term, b: _Term) -> _Terms:
    if _inside(a, b):
        return frozenset({a})
    if _inside(b, a):
        return frozenset({b})
    if isinstance(a, _Near) and isinstance(b, _Near):
        return frozenset({_Near(min(a.window, b.window), lcm(a.rate, b.rate)).simple()})
    return None
