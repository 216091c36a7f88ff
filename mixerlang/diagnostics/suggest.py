"""Did you mean."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest

LONGEST = 60
"""A word of more letters misspells nothing."""
MOST = 100
"""Candidates that are compared letter by letter: those with the longest prefix in common."""


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` most likely misspells, or None. Bounded, however many there are."""
    if len(word) > LONGEST:
        return None
    from difflib import get_close_matches

    close = [name for name in set(candidates) if abs(len(name) - len(word)) <= len(word) // 2 + 1]
    if len(close) > MOST:
        close = nsmallest(MOST, close, key=lambda name: (-_common(word, name), name))
    found = get_close_matches(word.lower(), sorted(close), n=1, cutoff=0.6)
    return found[0] if found else None


def _common(a: str, b: str) -> int:
    """Letters at the start that two words share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """The help line for a misspelt name, or None."""
    found = nearest(word, candidates)
    return None if found is None else f"did you mean `{found}`?"
