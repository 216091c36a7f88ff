"""A graph as one SVG: the stack of layers on the left, each kind of layer opened on the right."""

from __future__ import annotations

from ..graph import Graph
from ..groups import Group, Pattern, Repeat, groups_of, pattern_of
from .canvas import Canvas, clip
from .card import CARD, draw_card
from .wording import outside, place

MARGIN = 28
STACK = 250
"""Width of the stack."""
CHARACTER = 8
"""Width of a character of a name, a little more than it takes."""
BOX = 36
"""Height of its boxes."""
GAP = 18
"""Between boxes."""
PAD = 14
"""Inside the frame of a repetition."""


def svg(graph: Graph) -> str:
    """A self-contained picture."""
    canvas = Canvas()
    groups = groups_of(graph)
    canvas.text(MARGIN, MARGIN + 14, clip(graph.name, 60), "title")
    about = f"{graph.parameters():,} parameters · {place(graph.span)}"
    canvas.text(MARGIN, MARGIN + 36, clip(about, 100), "quiet")
    top = MARGIN + 60
    bottom = _Stack(canvas, groups).draw(graph, pattern_of(graph, groups), top)
    left, y = MARGIN + STACK + 44, float(top)
    for hue, group in enumerate(groups):
        y = draw_card(canvas, graph, group, hue, left, y) + 24
    width = left + CARD + MARGIN if groups else MARGIN + STACK + MARGIN
    return canvas.document(width, max(bottom, y - 24) + MARGIN, graph.name)


class _Stack:
    """From tokens down to logits."""

    def __init__(self, canvas: Canvas, groups: list[Group]) -> None:
        self.canvas = canvas
        self.hues = {group.title: hue for hue, group in enumerate(groups)}

    def draw(self, graph: Graph, pattern: Pattern, y: float) -> float:
        embedding, norm, head = outside(graph)
        y = self._box("embedding", embedding, MARGIN, y, STACK)
        y = self._parts(pattern, MARGIN, y, STACK)
        if norm is not None:
            y = self._box("final norm", norm, MARGIN, self._arrow(y), STACK)
        return self._box("head", head, MARGIN, self._arrow(y), STACK)

    def _parts(self, parts: Pattern, x: float, y: float, w: float) -> float:
        """Each part under the one before, an arrow above it; that into a frame goes on inside."""
        for part in parts:
            if isinstance(part, Repeat):
                y = self._repeat(part, x, self._arrow(y, head=False), w)
            else:
                y = self._box(part.title, None, x, self._arrow(y), w, self.hues[part.title])
        return y

    def _repeat(self, repeat: Repeat, x: float, y: float, w: float) -> float:
        inner = w - 2 * PAD if w > 4 * PAD else w
        below = self._parts(repeat.parts, x + (w - inner) / 2, y, inner)
        self.canvas.box(x, y, w, below + PAD - y, "frame")
        self.canvas.text(x + w - 8, y + 15, f"× {repeat.times}", "name", "end")
        return below + PAD

    def _box(
        self, name: str, text: str | None, x: float, y: float, w: float, hue: int | None = None
    ) -> float:
        self.canvas.box(x, y, w, BOX + 10 * (text is not None), hue=hue)
        middle = x + w / 2
        if text is None:
            shown = clip(name, max(1, int(w - 16) // CHARACTER))
            self.canvas.text(middle, y + BOX / 2 + 4.5, shown, "name", "middle")
            return y + BOX
        self.canvas.text(middle, y + 19, name, "name", "middle")
        self.canvas.text(middle, y + 36, clip(text, 38), "quiet", "middle")
        return y + BOX + 10

    def _arrow(self, y: float, head: bool = True) -> float:
        middle = MARGIN + STACK / 2
        self.canvas.wire((middle, y), (middle, y + GAP), arrow=head)
        return y + GAP
