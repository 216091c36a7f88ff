"""What attention costs: pairs of query and key that count, and the op's FLOPs by them."""

from __future__ import annotations

import math
from typing import Any

from .call import unpack
from .variant import Rule

Shape = tuple[int, ...]
"""What an op's FLOP formula is given for a tensor."""


def visible_pairs(tokens: int, rule: Rule) -> int:
    """Pairs of query and key that see each other in one sequence of `tokens`."""
    if rule.window is None or rule.strided == 1:
        return tokens * (tokens + 1) // 2
    near, far = min(rule.window, tokens), rule.strided
    pairs = _spread(rule.rate, near, tokens)
    if far:
        pairs += _spread(far, tokens, tokens) - _spread(math.lcm(rule.rate, far), near, tokens)
    alone = (_alone(rule, tokens - sink) for sink in range(min(rule.sinks, tokens)))
    return pairs + sum(alone)


def kept_pairs(tokens: int, window: int, budget: int | None) -> int:
    """At most: the pairs where a window keeps `budget` of the keys that left it, None all."""
    left = max(tokens - window, 0)  # queries for which keys left the window
    slots = left if budget is None else min(budget, left)
    outside = slots * (slots + 1) // 2 + slots * (left - slots)
    return visible_pairs(tokens, Rule(window)) + outside


def _spread(step: int, reach: int, tokens: int) -> int:
    """Pairs at distances 0, step, 2 step, ... below `reach` <= tokens."""
    count = -(-reach // step)
    return count * tokens - step * count * (count - 1) // 2


def _alone(rule: Rule, queries: int) -> int:
    """Of a sink's queries, those that see it for no other reason."""
    near, far = min(rule.window or queries, queries), rule.strided
    seen = -(-near // rule.rate)
    if far:
        seen += -(-queries // far) - -(-near // math.lcm(rule.rate, far))
    return queries - seen


def forward_flops(q: Shape, k: Shape, v: Shape, *rest: Any, **_: Any) -> int:
    """Useful FLOPs, masked pairs left out; packed sequences are counted as if they were one."""
    return 2 * _pairs(q, rest) * (q[-1] + v[-1])


def backward_flops(do: Shape, dlse: Any, o: Shape, lse: Shape, *rest: Any, **_: Any) -> int:
    """Five products: the scores again, dp, dq, dk and dv."""
    q: Shape = rest[0]
    v: Shape = rest[2]
    return 2 * _pairs(q, rest[3:]) * (3 * q[-1] + 2 * v[-1])


def _pairs(q: Shape, rest: tuple[Any, ...]) -> int:
    """Of all heads and sequences. rest: an op's extras, as shapes, and its rule."""
    extras, rule = unpack(rest)
    batch, tokens, heads, _ = q
    pairs = visible_pairs(tokens, rule)
    if extras.death is not None:
        snapshots: Any = extras.snapshots
        budget: int | None = None if snapshots is None else snapshots[-1]
        pairs = kept_pairs(tokens, rule.window or tokens, budget)
    return batch * heads * pairs
