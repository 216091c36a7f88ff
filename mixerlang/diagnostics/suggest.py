"""Did you mean."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` most likely misspells, or None.

    Bounded: a word of over 60 letters misspells nothing.
    """
    if len(word) > 60:
        return None
    from difflib import get_close_matches

    found = get_close_matches(word.lower(), sorted(set(candidates)), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """The help line for a misspelt name, or None."""
    found = nearest(word, candidates)
    return None if found is None else f"did you mean `{found}`?"
