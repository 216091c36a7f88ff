"""A graph as text: each kind of layer once, with what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from ...diagnostics.terminal import clean
from ..graph import Graph
from ..groups import Group, groups_of, pattern_of, spell_pattern
from .wording import Row, caption, outside, place, rows

WIDTH = 100
"""Columns of the text, unless single words are longer."""

GLUE = "\N{NO-BREAK SPACE}"
"""Where a line is not to be broken; `clean` makes it a space."""


@dataclass(frozen=True)
class Branch:
    """A line of the tree and what hangs from it. Heads of neighbours are lined up."""

    head: str
    text: str
    branches: tuple[Branch, ...] = ()


def tree(graph: Graph, width: int = WIDTH) -> str:
    """The stack from the embedding to the head, alike layers in one branch."""
    groups = groups_of(graph)
    embedding, norm, head = outside(graph)
    layers = Branch("layers", spell_pattern(pattern_of(graph, groups)),
                    tuple(_group(graph, group) for group in groups))
    branches = [Branch("embedding", embedding), layers, Branch("head", head)]
    if norm is not None:
        branches.insert(2, Branch("final_norm", norm))
    title = f"{graph.name} · {graph.parameters():,} parameters · {place(graph.span)}"
    return "\n".join(clean(line) for line in [title, *_lines(branches, "", width)])


def _group(graph: Graph, group: Group) -> Branch:
    text = f"{caption(graph, group)} · {place(group.first.span)}"
    return Branch(group.title, text, tuple(map(_node, rows(graph, group))))


def _node(row: Row) -> Branch:
    text = row.text
    if not row.infix:
        text += f"  <-{GLUE}{f',{GLUE}'.join(row.inputs)}"
    if row.width is not None:
        text += f"  ->{GLUE}{row.width:,}{GLUE}channels"
    return Branch(row.name, text)


def _lines(branches: Sequence[Branch], indent: str, width: int) -> Iterator[str]:
    column = max((len(branch.head) for branch in branches), default=0)
    for branch in branches:
        last = branch is branches[-1]
        below = indent + ("   " if last else "│  ")
        hanging = below + ("│  " if branch.branches else "   ") + " " * (column - 1)
        yield from wrap(
            branch.text,
            width,
            initial_indent=f"{indent}{'└─' if last else '├─'} {branch.head:<{column}}  ",
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from _lines(branch.branches, below, width)
