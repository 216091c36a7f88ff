"""Expressions beside the numbers: as data, and for readers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..algebra import Count, Regime, code, order, pretty, regimes
from .metrics import length_of

Given = tuple[tuple[str, int], ...]
NO_LENGTH = {"L": 0, "T": 1}
"""The smallest: a cache may be empty."""


@lru_cache(256)
def pieces(name: str, count: Count, given: Given = ()) -> list[Regime]:
    """Its form in each range of the length. given: values of other symbols, that ranges are for."""
    return regimes(count, name, dict(given), low=NO_LENGTH[name])


def as_json(values: Mapping[str, Count]) -> dict[str, Any]:
    """By key: the whole as Python, and its form and order in each range of the length."""
    return {key: _piecewise(length_of(key), count) for key, count in values.items() if count != 0}


@lru_cache(256)
def _piecewise(name: str, count: Count) -> dict[str, Any]:
    found = [
        {"from": each.first, "to": each.last, "expression": code(each.count),
         "order": order(each.count, name)}
        for each in pieces(name, count)
    ]  # fmt: skip
    return {"in": name, "expression": code(count), "regimes": found}


def lines(key: str, count: Count, given: Given = ()) -> list[str]:
    """`T <= 768: O(B·T²)  2·B·T·(...)`, one for each range of the length."""
    name = length_of(key)
    return [
        f"{_range(name, each)}{order(each.count, name)}  {pretty(each.count)}"
        for each in pieces(name, count, given)
    ]


def _range(name: str, regime: Regime) -> str:
    if regime.first <= NO_LENGTH[name]:
        return "" if regime.last is None else f"{name} ≤ {regime.last:,}: "
    if regime.last is None:
        return f"{name} ≥ {regime.first:,}: "
    if regime.last == regime.first:
        return f"{name} = {regime.first:,}: "
    return f"{regime.first:,} ≤ {name} ≤ {regime.last:,}: "
