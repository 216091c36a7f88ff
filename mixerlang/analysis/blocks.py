"""How many blocks of queries by keys attention kernels visit, as their loops are written.

A program owns a block of queries (kernels/attention/by_query.py.jinja) or of keys (backward_kv) and
walks over blocks of the other; rows of blocks begin at multiples of their size.
"""

from __future__ import annotations

from math import lcm

from ..algebra import Count, ceil_div, exact_div, greatest, least


def by_query(
    length: Count, queries: int, keys: int, reach: int | None, unit: int, extra: int | None
) -> Count:
    """Blocks of `queries` x `keys` that programs over queries visit.

    The one at t0 walks from `low` = unit * max(0, floor((t0 - reach) / unit)) to its last query
    (reach None: from 0), and over the keys before `low` again as far as `extra` blocks hold them
    (None: all).
    """
    full = length // queries
    rest = length - full * queries
    visited = _all_the_past(length, full, rest, queries, keys)
    if reach is None or extra is None:
        return visited
    spared: Count = 0
    period = lcm(queries, unit)
    ratio = unit // keys
    for place in range(period // queries):
        programs = ceil_div(full - place, period // queries)
        behind = -((place * queries - reach) // unit)
        spared = spared + ramp(programs, period // keys, behind * ratio + extra)
    last = ratio * greatest(0, (full * queries - reach) // unit)
    return visited - spared - least(1, rest) * greatest(0, last - extra)


def _all_the_past(length: Count, full: Count, rest: Count, queries: int, keys: int) -> Count:
    """Blocks where each program walks from the first key on."""
    period = lcm(queries, keys)
    total: Count = 0
    for place in range(period // queries):
        programs = ceil_div(full - place, period // queries)
        first = -(-(place + 1) * queries // keys)
        steps = exact_div(programs * (programs - 1), 2)
        total = total + programs * first + period // keys * steps
    return total + least(1, rest) * ceil_div(length, keys)


def by_key(length: Count, queries: int, keys: int, window: int | None) -> Count:
    """Blocks that programs over keys visit: the one at j0 from the block of query j0 to the last
    query that sees a key of its own."""
    programs, most = ceil_div(length, keys), ceil_div(length, queries)
    period = lcm(queries, keys)
    total: Count = 0
    for place in range(period // keys):
        own = ceil_div(programs - place, period // keys)
        step, first = period // queries, place * keys // queries
        total = total + own * (most - first) - step * exact_div(own * (own - 1), 2)
        if window is not None:
            last = -(-(place * keys + keys - 1 + window) // queries)
            total = total - falling_ramp(own, step, most - last)
    return total


def ramp(count: Count, step: int, behind: Count) -> Count:
    """Sum over s < count of max(0, step * s - behind)."""
    first = greatest(0, behind // step + 1)
    terms = greatest(0, count - first)
    return terms * (step * first - behind) + step * exact_div(terms * (terms - 1), 2)


def falling_ramp(count: Count, step: int, ahead: Count) -> Count:
    """Sum over s < count of max(0, ahead - step * s)."""
    terms = least(count, greatest(0, ceil_div(ahead, step)))
    return terms * ahead - step * exact_div(terms * (terms - 1), 2)
