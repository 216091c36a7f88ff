"""A graph as a Mermaid flowchart, for Markdown: each kind of layer opened where it first stands."""

from __future__ import annotations

from textwrap import wrap

from ...diagnostics.terminal import clean
from ..graph import Graph
from ..groups import Group, Pattern, Repeat, groups_of, pattern_of, place_of
from .wording import Row, caption, outside, rows

COLUMNS = 48
"""Columns of a line inside a box."""
PLAIN = frozenset(" ,.:=+-/()_×·")
"""Characters beside letters and digits that mean nothing to Mermaid inside quotes."""


def mermaid(graph: Graph) -> str:
    """The text of a ```mermaid block."""
    return _Chart(graph).draw()


class _Chart:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines = ["flowchart TB"]
        self.edges: list[str] = []
        self.indent = 1
        self.nodes = 0
        self.opened: set[str] = set()

    def draw(self) -> str:
        embedding, norm, head = outside(self.graph)
        self.embedding = last = self._box("embedding", embedding)
        last = self._parts(pattern_of(self.graph, groups_of(self.graph)), last)
        if norm is not None:
            last = self._linked(last, self._box("final norm", norm))
        self._linked(last, self._box("head", head))
        # An edge inside a subgraph would draw its nodes into it: all come last.
        return "\n".join([*self.lines, *self.edges]) + "\n"

    def _parts(self, parts: Pattern, last: str) -> str:
        """Draw parts one after another; the node that the last one ends with."""
        for part in parts:
            if isinstance(part, Repeat):
                self._open(f"× {part.times}")
                last = self._parts(part.parts, last)
                self._close()
            elif part.title in self.opened:
                last = self._linked(last, self._box(part.title, "as above"))
            else:
                self.opened.add(part.title)
                last = self._layer(part, last)
        return last

    def _layer(self, group: Group, last: str) -> str:
        self._open(f"{group.title} · {caption(self.graph, group)}")
        ids = {"x": last, "x0": self.embedding}
        for row in rows(self.graph, group):
            ids[row.name] = self._node(row)
            for name in row.inputs:
                self._linked(ids[name], ids[row.name])
        self._close()
        layer = group.first
        return ids[place_of(self.graph, layer, layer.output)]

    def _node(self, row: Row) -> str:
        if row.sign is None:
            return self._box(row.name, row.text)
        id = self._id()
        self._line(f'{id}(("{_label(row.sign)}"))')
        return id

    def _box(self, name: str, text: str) -> str:
        id = self._id()
        lines = [name, *wrap(text, COLUMNS, break_on_hyphens=False)]
        self._line(f'{id}["{"<br/>".join(map(_label, lines))}"]')
        return id

    def _linked(self, source: str, target: str) -> str:
        self.edges.append(f"  {source} --> {target}")
        return target

    def _open(self, title: str) -> None:
        self._line(f'subgraph {self._id()}["{_label(title)}"]')
        self.indent += 1

    def _close(self) -> None:
        self.indent -= 1
        self._line("end")

    def _id(self) -> str:
        self.nodes += 1
        return f"n{self.nodes}"

    def _line(self, text: str) -> None:
        self.lines.append("  " * self.indent + text)


def _label(text: str) -> str:
    """What Mermaid shows as this text, inside quotes."""
    return "".join(
        char if char.isalnum() or char in PLAIN else f"#{ord(char)};" for char in clean(text)
    )
