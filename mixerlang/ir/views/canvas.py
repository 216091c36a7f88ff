"""A few shapes of SVG, escaped; all colours and fonts in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from ...diagnostics.terminal import clean, width

STYLE = """\
text { font: 13px system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; \
fill: #1f2328; }
.title { font-size: 18px; font-weight: 600; }
.name { font-weight: 600; }
.quiet { font-size: 12px; fill: #59636e; }
.code { font: 11.5px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; \
fill: #424a53; white-space: pre; }
.page { fill: #ffffff; }
.card { fill: #ffffff; stroke: #d1d9e0; }
.node { fill: #f6f8fa; stroke: #c4ccd4; }
.frame { fill: none; stroke: #818b98; stroke-dasharray: 4 3; }
.wire { fill: none; stroke: #59636e; stroke-width: 1.4; }
.dot { fill: #59636e; }"""

PALETTE = (
    ("#ddf4ff", "#54aeff"), ("#dafbe1", "#4ac26b"), ("#fff1e5", "#fb8f44"),
    ("#fbefff", "#c297ff"), ("#fff8c5", "#d4a72c"), ("#ffeff7", "#ff80c8"),
)
"""Fill and border of each kind of layer, in turn."""


@dataclass
class Canvas:
    """Shapes so far, in user units from the top left."""

    items: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, w: float, h: float, style: str = "node",
        hue: int | None = None, radius: float = 6,
    ) -> None:
        """A rounded rectangle, in a style or in one of the colours of the palette."""
        paint = f'class="{style}"'
        if hue is not None:
            fill, stroke = PALETTE[hue % len(PALETTE)]
            paint = f'fill="{fill}" stroke="{stroke}"'
        self.items.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" {paint}/>'
        )

    def text(
        self, x: float, y: float, text: str, style: str = "", anchor: str = "start"
    ) -> None:
        """One line; y is its baseline."""
        self.items.append(
            f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">'
            f"{escape(clean(text))}</text>"
        )

    def wire(self, *points: tuple[float, float], arrow: bool = True) -> None:
        """Straight lines through the points."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.items.append(f'<path d="{path}" class="wire"{end}/>')

    def dot(self, x: float, y: float) -> None:
        self.items.append(f'<circle cx="{x:g}" cy="{y:g}" r="2.2" class="dot"/>')

    def disc(self, x: float, y: float, radius: float, text: str) -> None:
        self.items.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="node"/>')
        self.text(x, y + 4.5, text, "name", "middle")

    def document(self, w: float, h: float, title: str) -> str:
        """The whole file; it needs nothing else."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:g}" height="{h:g}" '
            f'viewBox="0 0 {w:g} {h:g}" role="img">\n<title>{escape(clean(title))}</title>\n'
            f"<style>{STYLE}</style>\n"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0.8 L7 4 L0 7.2 Z" class="dot"/>'
            "</marker></defs>"
        )
        page = f'<rect width="{w:g}" height="{h:g}" class="page"/>'
        return "\n".join([head, page, *self.items, "</svg>\n"])


def clip(text: str, columns: int) -> str:
    """A text that takes at most so many columns, its end cut."""
    if width(clean(text)) <= columns:
        return text
    return text[: columns - 1] + "…"
