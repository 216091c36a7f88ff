"""Constructor expressions: from bound terms to Python text that fits the line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from ..primitives.base import Term
from ..primitives.scan import Equation

WIDTH = 100
"""Columns of generated code."""

WORD = re.compile(r"[A-Za-z0-9_]+")
EQUATION = re.compile(r"[A-Za-z0-9_ .,()=+*/@-]+")


@dataclass(frozen=True, slots=True)
class Call:
    """A class applied to arguments, `("", value)` where an argument has no keyword."""

    name: str
    arguments: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple."""

    values: tuple[Expression, ...]


Expression = str | Call | Items


def constructor(term: Term, *first: int) -> Call:
    """The call that builds a term's layer: `first` (its width), then what is not a default."""
    arguments: list[tuple[str, Expression]] = [("", repr(value)) for value in first]
    arguments += [(name, value_of(value)) for name, value in spoken(term)]
    return Call(type(term).__name__, tuple(arguments))


def spoken(term: Term) -> Iterator[tuple[str, object]]:
    """The arguments of a term that its layer has to be told."""
    for name, value in term.arguments().items():
        if name in term.spec_only:
            continue
        field = type(term).model_fields[name]
        if field.is_required() or value != field.get_default(call_default_factory=True):
            yield name, value


def value_of(value: object) -> Expression:
    """The expression of one argument. Words are enumerated by the language, never free text."""
    if isinstance(value, Term):
        return constructor(value)
    if isinstance(value, tuple):
        return Items(tuple(value_of(item) for item in value))
    if isinstance(value, Equation):
        assert EQUATION.fullmatch(value), value
        return repr(str(value))
    if isinstance(value, str):
        assert WORD.fullmatch(value), value
    elif isinstance(value, float):
        assert isfinite(value), value
    else:
        assert value is None or isinstance(value, bool | int), value
    return repr(value)


def classes_of(expression: Expression) -> Iterator[str]:
    """Names of the classes that an expression calls."""
    if isinstance(expression, Call):
        yield expression.name
        for _, value in expression.arguments:
            yield from classes_of(value)
    elif isinstance(expression, Items):
        for value in expression.values:
            yield from classes_of(value)


def flat(expression: Expression) -> str:
    """An expression on one line."""
    if isinstance(expression, str):
        return expression
    if isinstance(expression, Items):
        inside = ", ".join(flat(value) for value in expression.values)
        return f"({inside},)" if len(expression.values) == 1 else f"({inside})"
    inside = ", ".join(_labelled(name, flat(value)) for name, value in expression.arguments)
    return f"{expression.name}({inside})"


def laid_out(expression: Expression, indent: int, before: int, after: int = 0) -> str:
    """An expression that starts at column `before` of a line indented by `indent`.

    Broken over lines, an argument a line, where it would not leave room for `after` more columns.
    """
    line = flat(expression)
    if isinstance(expression, str) or before + len(line) + after <= WIDTH:
        return line
    deeper = indent + 4
    if isinstance(expression, Items):
        head, parts = "(", [("", value) for value in expression.values]
    else:
        head, parts = f"{expression.name}(", list(expression.arguments)
    lines = []
    for name, value in parts:
        label = f"{name}=" if name else ""
        lines.append(" " * deeper + label + laid_out(value, deeper, deeper + len(label), 1) + ",")
    return "\n".join([head, *lines, " " * indent + ")"])


def _labelled(name: str, text: str) -> str:
    return f"{name}={text}" if name else text
