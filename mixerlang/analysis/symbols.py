"""Params of a spec as symbols: a graph whose sizes are expressions in them.

A graph is the same for other values of a param but for numbers in its terms. Of each number three
graphs tell whether it is a line in the param; what is more than that is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..algebra import Count, symbol
from ..ir.graph import Graph
from ..primitives.base import Op, Term

Build = Callable[[dict[str, int]], Graph | None]
"""The graph for values of some params, None where these are not accepted."""

RESERVED = ("B", "T", "L")


class Unsymbolic(ValueError):
    """A param that cannot stay a symbol."""


def with_symbols(graph: Graph, names: list[str], build: Build) -> Graph:
    """graph: for the values in force, which tell ranges of lengths apart."""
    found = graph
    for name in dict.fromkeys(names):
        if name in RESERVED or name not in graph.params:
            known = ", ".join(graph.params) or "none"
            raise Unsymbolic(f"{graph.name} has no param {name!r} to keep as a symbol: {known}")
        value = graph.params[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise Unsymbolic(f"the param {name} is {value}: only whole numbers can be symbols")
        probes = [(other, build({name: other})) for other in _near(value)]
        near = [(other, own) for other, own in probes if own is not None][:2]
        if len(near) < 2:
            raise Unsymbolic(f"the param {name} takes no values near {value}: nothing to compare")
        found = _merged(found, graph, near, name, value)
    return found


def _near(value: int) -> list[int]:
    return [value + 1, value + 3, value - 1, value - 3, value + 8, value - 8, 2 * value, 4 * value]


def _merged(
    found: Graph, base: Graph, near: list[tuple[int, Graph]], name: str, value: int
) -> Graph:
    others = [graph for _, graph in near]
    line = _Line(name, value, [other for other, _ in near])
    ids = [node.id for node in base]
    if any([node.id for node in other] != ids for other in others):
        raise Unsymbolic(f"the param {name} changes which layers there are: give it a value")
    made = Graph(found.name, found.fields, found.params, found.span, found.layers)
    for node in found:
        same = [base[node.id], *(other[node.id] for other in others)]
        if len({(each.type, type(each.op)) for each in same}) > 1:
            raise Unsymbolic(f"the param {name} changes the widths of layers: give it a value")
        op = line.term(node.op, [each.op for each in same])
        assert isinstance(op, Op)
        made.add(replace(node, op=op), tuple(source.id for source in found.inputs(node.id)))
    return made


class _Line:
    """Numbers that change in step with a param."""

    def __init__(self, name: str, value: int, others: list[int]) -> None:
        self.name, self.value, self.others = name, value, others

    def term(self, own: Term, same: list[Term]) -> Term:
        """own, with an expression for each of its numbers that differs among `same`."""
        changes = {}
        for field in own.arguments():
            values = [getattr(term, field) for term in same]
            made = self._value(getattr(own, field), values)
            if made is not getattr(own, field):
                changes[field] = made
        return own.replace(**changes) if changes else own

    def _value(self, own: Any, values: list[Any]) -> Any:
        if all(value == values[0] for value in values[1:]):
            return own
        if isinstance(own, Term) and len({type(value) for value in values}) == 1:
            return self.term(own, values)
        if isinstance(own, tuple) and len({len(value) for value in values}) == 1:
            return tuple(map(self._value, own, map(list, zip(*values, strict=True))))
        return self._count(own, values)

    def _count(self, own: Any, values: list[Any]) -> Count:
        if not isinstance(own, int):
            raise Unsymbolic(f"{self.name} and another symbol make one number: choose one")
        first, *rest = values
        if all(isinstance(value, int) for value in values):
            step, left = divmod(rest[0] - first, self.others[0] - self.value)
            line = [first + step * (other - self.value) for other in self.others]
            if not left and line == rest:
                found: Count = step * (symbol(self.name) - self.value) + first
                return found
        raise Unsymbolic(f"the param {self.name} changes more than sizes: give it a value")
