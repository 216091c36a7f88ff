"""An equation with every name resolved and every shape known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from ...source import Span

Axes = tuple[str, ...]
"""Of a value: none for a number per head, `key` or `value` for a vector, two for a matrix."""

AXES = ("key", "value")
IDENTITY = "I"
OUTPUT = "o"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why something is not linear in the states: the place and the reason."""

    span: Span
    reason: str


@dataclass(frozen=True, slots=True)
class Node:
    """op: `number`, `name` (an operand, a state or an earlier line), `I`, `+ - * / @`, `negate`,
    `T`, or the name of a function. states: whether a state is in it. obstacle: why it is not
    linear in them, if so."""

    op: str
    axes: Axes
    span: Span
    inputs: tuple[Node, ...] = ()
    name: str = ""
    number: Fraction = Fraction(0)
    states: bool = False
    obstacle: Obstacle | None = None

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.inputs)


@dataclass(frozen=True, slots=True)
class Line:
    """`target = node`; `+=` is written out."""

    target: str
    node: Node
    span: Span


def shown(axes: Axes) -> str:
    """`[key, value]`, for messages."""
    return f"[{', '.join(axes)}]" if axes else "one number per head"
