"""A model over values of its params."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

MOST = 1000
"""Settings of one question."""


def values_of(text: str) -> list[str]:
    """ "128, 256" as its values; commas inside brackets belong to a value."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    values = [value.strip() for value in found]
    if not all(values):
        raise ValueError(f"{text!r} has an empty value: write NAME=128,256")
    return list(dict.fromkeys(values))


def settings(given: dict[str, str]) -> Iterator[dict[str, str]]:
    """Every combination of the values, the last name's first."""
    lists = {name: values_of(text) for name, text in given.items()}
    count = prod(map(len, lists.values()))
    if count > MOST:
        raise ValueError(f"{count:,} settings: a sweep takes at most {MOST:,}")
    for chosen in product(*lists.values()):
        yield dict(zip(lists, chosen, strict=True))
