"""Settings of a model that stay within bounds, and of these the best."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .compare import Entry, metrics
from .lengths import spelled
from .units import length_of, size_of

BOUND = re.compile(r"(?P<key>[\w.]+)\s*(?:@(?P<length>\w+))?\s*<=\s*(?P<most>.+)")
NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?(?:e-?[0-9]{1,2})?")


@dataclass(frozen=True)
class Bound:
    """A metric at a length, and the most that it may be. length None: that of the analysis."""

    key: str
    length: int | None
    most: float

    @classmethod
    def parse(cls, text: str) -> Bound:
        """"cache_bytes@64k<=100MiB", "parameters<=400e6", "seconds.step@4k<=0.001"."""
        found = BOUND.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no bound: write KEY@LENGTH<=NUMBER")
        key = _known(found["key"])
        length = None if found["length"] is None else length_of(found["length"])
        number = found["most"].strip()
        most = float(number) if NUMBER.fullmatch(number) else float(size_of(number))
        return cls(key, length, most)

    def holds(self, entry: Entry) -> bool:
        return self.value(entry) <= self.most

    def value(self, entry: Entry) -> float:
        return entry.value(self.key, entry.analysis.length if self.length is None else self.length)


@dataclass(frozen=True)
class Goal:
    """A metric at a length that is to be small, or with `largest` large."""

    key: str
    length: int | None
    largest: bool = False

    @classmethod
    def parse(cls, text: str) -> Goal:
        """"cache_bytes@64k", "-parameters": the minus asks for many."""
        name, at, length = text.strip().partition("@")
        largest = name.startswith("-")
        key = _known(name.removeprefix("-"))
        return cls(key, length_of(length) if at else None, largest)

    @property
    def title(self) -> str:
        at = "" if self.length is None else f"@{spelled(self.length)}"
        return f"{'-' if self.largest else ''}{self.key}{at}"

    def value(self, entry: Entry) -> float:
        length = entry.analysis.length if self.length is None else self.length
        value = entry.value(self.key, length)
        return -value if self.largest else value


def _known(key: str) -> str:
    if key not in metrics():
        raise ValueError(f"there is no metric {key!r}: see the keys of `mixerlang analyze --json`")
    return key


def pareto(
    entries: Iterable[Entry], bounds: Sequence[Bound], goals: Sequence[Goal]
) -> list[tuple[Entry, tuple[float, ...]]]:
    """Those within the bounds that no other is as good as in every goal and better in one, with
    the values of the goals."""
    within = [entry for entry in entries if all(bound.holds(entry) for bound in bounds)]
    valued = [(entry, tuple(goal.value(entry) for goal in goals)) for entry in within]
    return [
        (entry, values) for entry, values in valued
        if not any(_better(other, values) for _, other in valued)
    ]  # fmt: skip


def _better(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
