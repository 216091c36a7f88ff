"""One kind of layer opened: its nodes from top to bottom, and wires that pass some by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from ..graph import Graph
from ..groups import Group, place_of
from .canvas import Canvas, clip
from .wording import Row, caption, place, rows

CARD = 600
"""Width of a card."""
HEADER = 48
GAP = 20
"""Between nodes."""
LANE = 16
"""Between wires that run beside the nodes."""
LINE = 15
CHARACTER = 6.95
"""Width of a character of the code font, a little more than it takes."""
LINES = 8
"""Lines of a node; what is longer is cut."""


@dataclass
class Shape:
    """A node where it stands. inputs: places in the list of shapes, -1 for x0."""

    row: Row
    inputs: tuple[int, ...]
    lines: list[str]
    top: float = 0

    @property
    def small(self) -> bool:
        """Whether it is drawn as a disc: an operator, or the stream that enters and leaves."""
        return self.row.sign is not None

    @property
    def height(self) -> float:
        return 24 if self.small else 30 + LINE * len(self.lines)

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def draw_card(canvas: Canvas, graph: Graph, group: Group, hue: int, x: float, y: float) -> float:
    """Draw at x, y; the y below it."""
    shapes = list(_shapes(graph, group))
    jumps = lanes(shapes)
    left = x + 20 + LANE * (1 + max(jumps.values(), default=-1))
    width = x + CARD - 20 - left
    bottom = y + HEADER + 12
    for shape in shapes:
        shape.lines = _wrapped(shape.row, width)
        shape.top = bottom
        bottom = shape.bottom + GAP
    bottom += 14 - GAP
    canvas.box(x, y, CARD, bottom - y, "card", radius=8)
    canvas.box(x, y, CARD, HEADER, hue=hue, radius=8)
    canvas.text(x + 14, y + 20, clip(group.title, 44), "name")
    canvas.text(x + CARD - 14, y + 20, clip(place(group.first.span), 30), "quiet", "end")
    canvas.text(x + 14, y + 38, clip(caption(graph, group), 90), "quiet")
    for shape in shapes:
        _draw_shape(canvas, shape, left, width)
    _draw_wires(canvas, shapes, jumps, x + 20, left, width)
    return bottom


def _shapes(graph: Graph, group: Group) -> Iterator[Shape]:
    """The stream that enters, the nodes, the stream that leaves."""
    layer = group.first
    found = rows(graph, group)
    index = {"x": 0, "x0": -1} | {row.name: place for place, row in enumerate(found, 1)}
    output = place_of(graph, layer, layer.output)
    for row in [Row("x", "", (), "x"), *found, Row("x", "", (output,), "x")]:
        yield Shape(row, tuple(index[name] for name in row.inputs), [])


def _wrapped(row: Row, width: float) -> list[str]:
    if row.sign is not None:
        return []
    text = row.text if row.width is None else f"{row.text} -> {row.width:,} channels"
    lines = wrap(text, int((width - 24) / CHARACTER), break_on_hyphens=False)
    return [*lines[: LINES - 1], "…"] if len(lines) > LINES else lines


def lanes(shapes: list[Shape]) -> dict[tuple[int, int], int]:
    """The lane of every wire (source, target) that does not simply go to the next node.

    Wires from one source share a lane; others do when they do not overlap.
    """
    reach: dict[int, list[int]] = {}
    for target, shape in enumerate(shapes):
        for source in shape.inputs:
            if source != target - 1:
                reach.setdefault(source, []).append(target)
    ends: list[int] = []
    found: dict[tuple[int, int], int] = {}
    # Short ones first, so that they run close to the nodes.
    for source, targets in sorted(reach.items(), key=lambda item: max(item[1]) - item[0]):
        start, end = source, max(targets)
        lane = next((lane for lane, taken in enumerate(ends) if taken <= start), len(ends))
        ends[lane : lane + 1] = [end]
        found.update({(source, target): lane for target in targets})
    return found


def _draw_shape(canvas: Canvas, shape: Shape, x: float, w: float) -> None:
    if shape.row.sign is not None:
        canvas.disc(x + w / 2, shape.middle, 12, shape.row.sign)
        return
    canvas.box(x, shape.top, w, shape.height)
    canvas.text(x + 12, shape.top + 18, clip(shape.row.name, 60), "name")
    for number, line in enumerate(shape.lines, 1):
        canvas.text(x + 12, shape.top + 18 + LINE * number, line, "code")


def _draw_wires(
    canvas: Canvas, shapes: list[Shape], jumps: dict[tuple[int, int], int],
    edge: float, x: float, w: float,
) -> None:
    center = x + w / 2
    for target, shape in enumerate(shapes):
        if target and target - 1 in shape.inputs:
            canvas.wire((center, shapes[target - 1].bottom), (center, shape.top))
    count = 1 + max(jumps.values(), default=-1)
    for (source, target), lane in jumps.items():
        column = edge + LANE * (count - 1 - lane)
        start = shapes[source].bottom + GAP / 2 - 3 if source >= 0 else shapes[0].middle
        end = shapes[target].middle
        into = center - 12 if shapes[target].small else x
        if source >= 0:
            canvas.wire((center, shapes[source].bottom), (center, start), arrow=False)
            canvas.dot(center, start)
            canvas.wire((center, start), (column, start), (column, end), (into, end))
        else:
            canvas.text(column - 6, start - 4, "x0", "quiet")
            canvas.wire((column, start), (column, end), (into, end))
