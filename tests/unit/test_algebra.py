"""The algebra of costs: canonical, exact, and the same as integers wherever both exist."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mixerlang.algebra import (
    Count,
    at,
    ceil_div,
    code,
    crossings,
    exact_div,
    greatest,
    least,
    longest,
    number,
    order,
    power_of_two,
    pretty,
    reached,
    regimes,
    symbol,
)

B, T = symbol("B"), symbol("T")

FORMULAS: dict[str, Callable[[Count, Count], Count]] = {
    "polynomial": lambda b, t: 3 * b * t * t - 2 * t + 7,
    "triangle": lambda b, t: b * exact_div(t * (t + 1), 2),
    "window": lambda b, t: b * (least(t, 5) * t - exact_div(least(t, 5) * (least(t, 5) - 1), 2)),
    "floor": lambda b, t: greatest(0, (t - 6) // 4 + 1) * b,
    "ceil": lambda b, t: ceil_div(t, least(64, power_of_two(t))) * b + -(-t // 3),
    "step": lambda b, t: 10 * reached(t, 9) + b,
    "nested": lambda b, t: greatest(b, least(t, least(11, ceil_div(t + 1, 2)) + 3)),
    "sawtooth": lambda b, t: b * least(2, t - 4 * (t // 4)) + greatest(t // 3, t // 4 - 1),
    "negative": lambda b, t: b - t - 4 * (t // 2) + (-t) // 5,
    "tiles": lambda b, t: ceil_div(3 * t + 8, 4) * 4 + (8 * t + 3) // 4,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_expressions_are_what_integers_are(name: str) -> None:
    formula = FORMULAS[name]
    count = formula(B, T)
    for t in range(1, 150):
        for b in (1, 3):
            expected = formula(b, t)
            assert number(count, B=b, T=t) == expected
            assert eval(code(count), {"B": b, "T": t}) == expected
            assert at(at(count, {"B": b}), {"T": t}) == expected


@pytest.mark.parametrize("name", FORMULAS)
def test_regimes_cover_every_length_once(name: str) -> None:
    count = FORMULAS[name](B, T)
    found = regimes(count)
    for t in range(1, 150):
        [own] = [regime for regime in found if regime.holds(t)]
        assert number(own.count, B=1, T=t) == number(count, B=1, T=t)
    assert found[0].first == 1 and found[-1].last is None


def test_equal_polynomials_are_equal() -> None:
    assert (B + T) * (B - T) == B * B - T * T
    assert hash((B + T) * (B - T)) == hash(B * B - T * T)
    assert T - T == 0 and T * 0 == 0 and T != B
    assert least(T, 5) == least(5, T) and least(T, T + 1) == T and greatest(T, T - 2) == T
    assert (64 * T + 128) // 64 == T + 2
    assert 2 * exact_div(T * (T + 1), 2) == T * T + T


def test_choices_are_made_inside_a_regime() -> None:
    assert [(r.first, r.last, code(r.count)) for r in regimes(least(T, 768) * T)] == [
        (1, 768, "T**2"),
        (769, None, "768*T"),
    ]
    assert [(r.first, r.last, r.count) for r in regimes(reached(T, 9))] == [(1, 8, 0), (9, None, 1)]
    [small, large] = regimes(ceil_div(T, least(64, power_of_two(T))))
    assert code(large.count) == "(-(-T // 64))" and small.last == 64


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (2 * B * T * (T + 64), "2·B·T·(T + 64)"),
        (exact_div(T * T + T, 2), "T·(T + 1)/2"),
        (exact_div(T * T + 1, 2), "(T² + 1)/2"),
        (1_000_000 * B, "1,000,000·B"),
        (ceil_div(T, 64) * 5, "5·⌈T/64⌉"),
        ((T - 3) // 2, "⌊(T - 3)/2⌋"),
        (-T, "-T"),
        (least(T, 9), "min(T, 9)"),
        (power_of_two(T), "2^⌈log₂ T⌉"),
        (12, "12"),
    ],
)
def test_pretty(count: Count, text: str) -> None:
    assert pretty(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (3 * B * T * T + 9 * T, "O(B·T²)"),
        (B * T + T * T, "O(T²)"),
        (5, "O(1)"),
        (7 * B, "O(B)"),
        (B * T * (T // 64), "O(B·T²)"),
        (T * B + T * symbol("w"), "O(B·T + T·w)"),
        (B * ceil_div(T, 64) * 64, "O(B·T)"),
    ],
)
def test_order(count: Count, text: str) -> None:
    assert order(count) == text


def test_crossings() -> None:
    assert crossings(T * T, 100 * T) == [101]
    assert crossings(T * T, 100 * T, low=200) == []
    assert crossings(least(T, 50) * 10, T + 40) == [5, 461]
    assert crossings(5, 5) == []


def test_crossings_of_stairs_are_where_a_walk_finds_them() -> None:
    rng = random.Random(0)
    for _ in range(20):
        a = rng.randint(1, 9) * T + rng.randint(0, 50)
        b = rng.randint(2, 12) * ceil_div(T, 4) * 4 + rng.randint(0, 9)
        signs = [number(a - b, T=t) for t in range(1, 300)]
        walked = []
        before = 0
        for t, sign in enumerate(signs, 1):
            now = (sign > 0) - (sign < 0)
            if now and before and now != before:
                walked.append(t)
            before = now or before
        found = crossings(a, b, high=299)
        assert set(found) <= set(walked)
        assert len(found) % 2 == len(walked) % 2  # a crossing back and forth may be passed over


def test_the_longest_length() -> None:
    assert longest(12 * T, 100) == 8
    assert longest(12 * T + 200, 100) == 0
    assert longest(least(T, 50) * 10, 400) == 40
    assert longest(least(T, 50) * 10, 500) is None
    assert longest(least(T, 8) + 20 * reached(T, 30), 10) == 29
    assert longest(T * T, 2**60) == 2**30
