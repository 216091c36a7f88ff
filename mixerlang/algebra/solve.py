"""Lengths at which two expressions cross, and the longest that stays within a bound."""

from __future__ import annotations

from collections.abc import Mapping

from .expression import Count, value
from .regimes import FAR, regimes, turn

STEP = 1.25
"""Between lengths at which a difference is looked at, so that crossings as far apart are found."""


def crossings(
    a: Count, b: Count, name: str = "T", given: Mapping[str, int] | None = None,
    low: int = 1, high: int = FAR,
) -> list[int]:  # fmt: skip
    """Lengths from which on the other one is larger: a - b has another sign than before."""
    if a == b:
        return []
    given = dict(given or {})

    def sign(length: int) -> int:
        values = {**given, name: length}
        difference = value(a, values) - value(b, values)
        return (difference > 0) - (difference < 0)

    edges = {r.first for count in (a, b) for r in regimes(count, name, given, low)}
    points = sorted({p for p in {*edges, *_grid(low, high), high} if low <= p <= high})
    found: list[int] = []
    start, before = low, sign(low)
    for point in points:
        now = sign(point)
        if now and before and now != before:
            edge = turn(sign, start, point)
            found += [] if edge is None else [edge]
        if now:
            start, before = point, now
    return found


def _grid(low: int, high: int) -> list[int]:
    points, point = [], low
    while point < high:
        points.append(point)
        point = max(point + 1, int(point * STEP))
    return points


def longest(
    count: Count, most: int, name: str = "T", given: Mapping[str, int] | None = None, low: int = 1
) -> int | None:
    """The largest length with count <= most, for a count that does not fall within a regime; None
    where every length is, low - 1 where none is."""
    given = dict(given or {})
    for regime in reversed(regimes(count, name, given, low)):
        if value(count, {**given, name: regime.first}) > most:
            continue
        last = FAR if regime.last is None else regime.last
        first_beyond = turn(
            lambda length: -1 if value(count, {**given, name: length}) <= most else 1,
            regime.first, last,
        )  # fmt: skip
        if first_beyond is not None:
            return first_beyond - 1
        return regime.last
    return low - 1
