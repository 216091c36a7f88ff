"""Models side by side over lengths, and the lengths at which they change places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from ..algebra import Count, crossings, number
from ..diagnostics.terminal import width
from .lengths import spelled
from .markup import MARKUPS
from .metrics import METRICS, length_of
from .report import SCHEMA, Analysis, analyze
from .roofline import latency_on
from .table import MOST, cut
from .units import binary, seconds, si

OF_MODEL = (
    "activation_bytes_checkpointed",
    "peak_bytes.training",
    "peak_bytes.training_checkpointed",
    "peak_bytes.decode",
)
OF_TIME = ("seconds.prefill", "seconds.step", "seconds.training")
"""Estimates on a GPU, an h100 unless another is named. They have no expression, and so no
crossings."""
COMPARED = ("flops.forward.useful", "flops.step.useful", "cache_bytes")
"""What is told unless something else is asked for."""

TITLE, CELL = 30, 10
"""Columns of a model's name, at most, and of a number."""
MOST_CROSSINGS = 20
"""Lines that tell where models change places."""


def metrics() -> tuple[str, ...]:
    """Keys that models can be compared by."""
    return (*METRICS, *OF_MODEL, *OF_TIME)


@dataclass(frozen=True)
class Entry:
    """A model, or a setting of one, by its title."""

    title: str
    analysis: Analysis
    gpu: str = "h100"
    _known: dict[str, Count] = field(default_factory=dict, compare=False)

    def formula(self, key: str) -> Count:
        if key not in self._known:
            if key in OF_MODEL:
                self._known.update(self.analysis.memory_formulas)
            else:
                self._known[key] = self.analysis.formulas_of([key]).total[key]
        return self._known[key]

    def value(self, key: str, length: int) -> float:
        """An integer, but for times."""
        own = self.analysis
        if key in OF_TIME:
            at = analyze(own.graph, own.batch, length, own.dtype, own.backend)
            return float(getattr(latency_on(at, self.gpu), key.partition(".")[2]))
        return number(self.formula(key), B=own.batch, T=length, L=length)


@dataclass(frozen=True)
class Comparison:
    entries: Sequence[Entry]
    lengths: Sequence[int]
    keys: Sequence[str] = COMPARED

    def table(self) -> str:
        """A block of rows per metric, with as many lengths as go into 100 columns."""
        titles = [*self.keys, *(entry.title for entry in self.entries)]
        title = max(min(TITLE, width(text)) for text in titles)
        shown = self._shown((MOST - title) // CELL)
        lines = [self._head()]
        for key in self.keys:
            headings, *rows = (_row(row, title) for row in self._cells(key, shown))
            lines += ["", headings, "─" * len(headings), *rows]
        found = [crossing.line for crossing in self.crossings()]
        if len(found) > MOST_CROSSINGS:
            left = len(found) - MOST_CROSSINGS
            found[MOST_CROSSINGS:] = [f"... and {left:,} more: --json tells all of them"]
        return "\n".join([*lines, *(["", *found] if found else [])])

    def markup(self, language: str) -> str:
        """A table per metric, of `markdown` or `latex`, with every length."""
        blocks = (self._cells(key, self.lengths) for key in self.keys)
        return "\n\n".join(MARKUPS[language](rows[0], rows[1:], 1) for rows in blocks)

    def _cells(self, key: str, shown: Sequence[int]) -> list[list[str]]:
        """Headings, then a row per model."""
        rows = [[key, *map(spelled, shown)]]
        for entry in self.entries:
            rows.append([entry.title, *(spell(key, entry.value(key, at)) for at in shown)])
        return rows

    def _head(self) -> str:
        batch = self.entries[0].analysis.batch
        dtypes = dict.fromkeys(entry.analysis.dtype for entry in self.entries)
        return f"batch {batch:,}, {' and '.join(dtypes)}; by length"

    def _shown(self, most: int) -> list[int]:
        """Lengths that fit, evenly, the first and the last among them."""
        last = len(self.lengths) - 1
        count = min(most, last + 1)
        places = [round(index * last / max(1, count - 1)) for index in range(count)]
        return [self.lengths[place] for place in places]

    def crossings(self) -> Iterator[Crossing]:
        """Within the lengths asked for; of many models, each with the first."""
        low, high = self.lengths[0], self.lengths[-1]
        pairs = list(combinations(self.entries, 2))
        if len(self.entries) > 4:
            pairs = [(self.entries[0], other) for other in self.entries[1:]]
        for key in self.keys:
            for a, b in pairs if key not in OF_TIME else ():
                given = {"B": a.analysis.batch}
                at = crossings(a.formula(key), b.formula(key), length_of(key), given, low, high)
                for length in at:
                    more = a if a.value(key, length) > b.value(key, length) else b
                    yield Crossing(key, length, more.title, (b if more is a else a).title)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "lengths": list(self.lengths),
            "entries": [
                {
                    "title": entry.title,
                    "model": entry.analysis.model,
                    "params": {name: str(value) for name, value in entry.analysis.params.items()},
                    "batch": entry.analysis.batch,
                    "dtype": entry.analysis.dtype,
                    "values": {
                        key: [entry.value(key, length) for length in self.lengths]
                        for key in self.keys
                    },
                }
                for entry in self.entries
            ],
            "crossings": [crossing.as_json() for crossing in self.crossings()],
        }


@dataclass(frozen=True)
class Crossing:
    """From `length` on, `more` takes more than `less`."""

    key: str
    length: int
    more: str
    less: str

    @property
    def line(self) -> str:
        text = f"{self.key}: {self.more} takes more than {self.less} from {self.length:,} on"
        return cut(text, MOST)

    def as_json(self) -> dict[str, Any]:
        return {"metric": self.key, "length": self.length, "more": self.more, "less": self.less}


def _row(cells: Sequence[str], column: int) -> str:
    title, *numbers = cells
    title = cut(title, column)
    space = " " * (column - width(title))
    return title + space + "".join(number.rjust(CELL) for number in numbers)


def spell(key: str, value: float) -> str:
    if key in OF_TIME:
        return seconds(value)
    unit = METRICS.get(key, "bytes")
    return binary(value) if unit == "bytes" else si(value) if unit else f"{value:,}"
