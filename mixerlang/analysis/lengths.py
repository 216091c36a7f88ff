"""Lengths as people ask for them: "4k", "1k,4k,1M", "4k..1M"."""

from __future__ import annotations

from .units import length_of

MOST = 64
"""Lengths of one question."""


def lengths(text: str) -> list[int]:
    """In rising order; a range doubles from its first length, and ends with its last."""
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        found |= _range(length_of(first), length_of(last)) if dots else {length_of(part)}
    if len(found) > MOST:
        raise ValueError(f"{text!r} is {len(found)} lengths: at most {MOST}")
    return sorted(found)


def _range(first: int, last: int) -> set[int]:
    if first > last:
        raise ValueError(f"a range rises: {first:,}..{last:,} does not")
    found = {last}
    while first < last:
        found.add(first)
        first *= 2
    return found


def spelled(length: int) -> str:
    """4096 as 4k, 1048576 as 1M; what is no whole number of them as it is."""
    for power, letter in ((30, "G"), (20, "M"), (10, "k")):
        if length % 2**power == 0:
            return f"{length >> power:,}{letter}"
    return f"{length:,}"
