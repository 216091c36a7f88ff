"""Lines over lengths, both axes logarithmic, as an SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log

from ..diagnostics.terminal import clean
from .lengths import spelled

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 72, 150, 40, 44
COLORS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0f766e", "#57606a")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""Lines differ by colour and by dash, so that print in grey tells them apart."""
STYLE = (
    "text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2328}"
    ".t{font-size:14px;font-weight:600}.q{fill:#59636e;font-size:11px}"
    ".g{stroke:#d1d9e0;stroke-width:1}.l{fill:none;stroke-width:2}"
)


@dataclass(frozen=True)
class Line:
    """A curve by its values at the plot's lengths; values of 0 are left out."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Plot:
    title: str
    lengths: Sequence[int]
    lines: Sequence[Line]
    spell: Callable[[float], str]
    base: int = 10
    """Of the powers that are marked: 16 for bytes, so that they are round in MiB and GiB."""

    def svg(self) -> str:
        known = [value for line in self.lines for value in line.values if value > 0]
        low, high = (min(known), max(known)) if known else (1.0, 10.0)
        bottom = floor(log(low, self.base) + 1e-9)
        top = max(ceil(log(high, self.base) - 1e-9), bottom + 1)
        parts = [self._head(), *self._across(), *self._up(bottom, top)]
        ends = _apart([self._y(_last(line.values) or low, bottom, top) for line in self.lines])
        for index, (line, end) in enumerate(zip(self.lines, ends, strict=True)):
            parts += self._line(index, line, bottom, top, end)
        return "\n".join([*parts, "</svg>"])

    def _head(self) -> str:
        title = escape(clean(self.title))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{title}"><style>{STYLE}</style>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
            f'<text class="t" x="{LEFT}" y="22">{title}</text>'
        )

    def _across(self) -> list[str]:
        """Lengths along the bottom, a label for every other power where they are many."""
        step = -(-len(self.lengths) // 8)
        found = []
        for place, length in enumerate(self.lengths):
            if place % step == 0:
                x = self._x(place)
                found.append(_text(x, HEIGHT - BOTTOM + 18, spelled(length), "q", "middle"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [*found, _text(middle, HEIGHT - 8, "length in tokens", "q", "middle")]

    def _up(self, bottom: int, top: int) -> list[str]:
        """A line and a label for each power of ten, of some where they are many."""
        step = -(-(top - bottom) // 7)
        found = []
        for power in range(bottom, top + 1, step):
            y = self._y(float(self.base) ** power, bottom, top)
            found.append(
                f'<path class="g" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
                + _text(LEFT - 8, y + 4, self.spell(float(self.base) ** power), "q", "end")
            )
        return found

    def _line(self, index: int, line: Line, bottom: int, top: int, end: float) -> list[str]:
        color, dash = COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]
        points = [f"{self._x(place):.1f} {self._y(value, bottom, top):.1f}"
                  for place, value in enumerate(line.values) if value > 0]
        path = "M" + "L".join(points) if points else ""
        style = f'stroke="{color}" stroke-dasharray="{dash}"'
        name = clean(line.name)
        name = name if len(name) <= 20 else name[:19] + "…"
        return [
            f'<path class="l" {style} d="{path}"/>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{end + 4:.1f}" style="fill:{color}">'
            f"{escape(name)}</text>",
        ]

    def _x(self, place: int) -> float:
        return LEFT + (WIDTH - RIGHT - LEFT) * place / max(1, len(self.lengths) - 1)

    def _y(self, value: float, bottom: int, top: int) -> float:
        share = (log(value, self.base) - bottom) / (top - bottom)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{text}</text>'


def _last(values: Sequence[float]) -> float:
    return next((value for value in reversed(values) if value > 0), 0.0)


def _apart(places: Sequence[float], gap: float = 14.0) -> list[float]:
    """Labels moved up or down until no two stand on one another, and all inside the plot."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    found = list(places)
    edge = float(TOP)
    for index in order:
        found[index] = edge = max(found[index], edge + gap)
    edge = float(HEIGHT - BOTTOM + gap)
    for index in reversed(order):
        found[index] = edge = min(found[index], edge - gap)
    return found
