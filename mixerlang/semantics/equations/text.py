"""Checked equations as the text that a scan's layer reads: Python's syntax, numbers put in."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from keyword import iskeyword

from ...primitives.scan import Equation
from .node import IDENTITY, Axes, Line, Node

BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2, "negate": 3}
"""How tightly an operator binds; everything else binds tighter."""
TIGHTEST = 9


def equation(line: Line, ones: frozenset[str]) -> Equation:
    """ones: names that are 1 here."""
    return Equation(f"{spoken(line.target)} = {text(line.node, ones)}")


def spoken(name: str) -> str:
    """A name of a spec as one of Python."""
    return f"{name}_" if iskeyword(name.rstrip("_")) else name


def text(node: Node, ones: frozenset[str], bound: int = 0) -> str:
    """An expression, in parentheses where something that binds as tightly as `bound` is around."""
    binding = BINDING.get(node.op, TIGHTEST)
    written = _text(node, ones, binding)
    return f"({written})" if binding < bound else written


def _text(node: Node, ones: frozenset[str], binding: int) -> str:
    match node.op:
        case "number":
            return _number(node.number)
        case "name":
            return "1" if node.name in ones else spoken(node.name)
        case _ if node.op == IDENTITY:
            return f"I.{node.axes[0]}"
        case "negate":
            return f"-{text(node.inputs[0], ones, binding)}"
        case "T":
            return f"{text(node.inputs[0], ones, TIGHTEST)}.T"
        case "+" | "-" | "*" | "/" | "@":
            left, right = node.inputs
            # `a - (b - c)`, `a * (b * c)` are what they say: equations run as they are written.
            one, two = text(left, ones, binding), text(right, ones, binding + 1)
            return f"{one} {node.op} {two}"
    return f"{node.op}({', '.join(text(each, ones) for each in node.inputs)})"


def _number(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator) if value >= 0 else f"({value.numerator})"
    return repr(float(value)) if value >= 0 else f"({float(value)!r})"


def contractions(lines: Iterable[Line]) -> tuple[Axes, ...]:
    """Of each `@` the axes it goes over: those of its left side, and of its right but the first."""
    nodes = (node for line in lines for node in line.node.walk())
    return tuple(
        sorted(node.inputs[0].axes + node.inputs[1].axes[1:] for node in nodes if node.op == "@")
    )
