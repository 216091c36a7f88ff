"""Names and comments of generated code. Text of a spec passes here before it is written.

Only identifiers made here, numbers and `repr`s reach code; everything else stands in comments,
where nothing but a line break could end it.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import PurePath

from ..source import Span

LONGEST = 40
"""Letters of a generated class name."""


def camel(words: str) -> str:
    """`gated_deltanet` as `GatedDeltanet`: ASCII letters and digits alone."""
    parts = re.split(r"[^A-Za-z0-9]+", words)
    return "".join(part[:1].upper() + part[1:] for part in parts)


def class_name(words: str, suffix: str, taken: Collection[str]) -> str:
    """A legal class name for what a spec calls `words`, unlike those taken."""
    stem = camel(words)[: LONGEST - len(suffix)] + suffix
    if not stem or stem[0].isdigit():
        stem = f"M{stem}"
    return unused(stem, taken)


def attribute(words: str) -> str:
    """A legal attribute name for the last part of a node's id."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", words) or "_"
    if name[0].isdigit() or keyword.iskeyword(name):
        return f"_{name}"
    return name


def unused(stem: str, taken: Collection[str]) -> str:
    """`stem`, or the first of stem2, stem3, ... that is neither taken nor a keyword."""
    name, number = stem, 1
    while name in taken or keyword.iskeyword(name):
        number += 1
        name = f"{stem}{number}"
    return name


def one_line(text: object) -> str:
    """Text fit for a comment: what is not printable is escaped, line breaks above all."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in str(text)
    )


def shown_path(path: str) -> str:
    """A path as the user gave it where that is relative, else its last part."""
    pure = PurePath(path)
    return pure.name if pure.is_absolute() else pure.as_posix()


def place_of(span: Span | None) -> str | None:
    """`file:line` of a span, the file by its last part."""
    return None if span is None else f"{PurePath(span.source.path).name}:{span.begin[0]}"


def enumerate_numbers(numbers: Iterable[int]) -> str:
    """Rising numbers in few words: `0, 2, 4, ..., 22`, `3`, `0-5`."""
    found = list(numbers)
    steps = {b - a for a, b in pairwise(found)}
    if len(found) > 3 and len(steps) == 1:
        if steps == {1}:
            return f"{found[0]}-{found[-1]}"
        return f"{found[0]}, {found[1]}, ..., {found[-1]}"
    if len(found) > 12:
        return f"{found[0]}, {found[1]}, ..., {found[-1]} ({len(found)} in all)"
    return ", ".join(map(str, found))
