"""What each node of a graph costs, alike ones computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..algebra import Count
from ..ir.graph import Graph, Node, Tokens
from ..primitives.base import Op
from ..primitives.part import Part, Workload, elementwise
from ..primitives.pointwise import Pointwise
from .executed import executed
from .metrics import METRICS, Cost


@dataclass
class Costs:
    """Costs of the nodes of a graph for a workload: a call's new tokens, and a step after as many
    in a cache. cached: the workload whose length is that of the cache. keys: of the metrics that
    are asked for."""

    graph: Graph
    work: Workload
    cached: Workload
    keys: frozenset[str] = frozenset(METRICS)
    _known: dict[tuple[Op, tuple[int, ...]], Cost] = field(default_factory=dict)
    _known_parts: dict[tuple[Op, tuple[int, ...], str], list[Part]] = field(default_factory=dict)
    _whole: dict[tuple[int, int, bool], Cost] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)

    def of(self, node: Node) -> Cost:
        """One object for all nodes that cost the same. A tensor that several nodes keep for
        backward counts for the first."""
        widths = node_widths(self.graph, node)
        key = (node.op, widths)
        if key not in self._known:
            self._known[key] = self._of_op(node, widths)
        cost, kept, owns = self._known[key], self._kept_first(node), node.weights == node.id
        whole = (id(cost), kept, owns)
        if whole not in self._whole:
            inputs = self.work.bytes_per_element * self.work.tokens * kept
            cost = cost.replaced("activation_bytes", cost["activation_bytes"] + inputs)
            parameters = node.op.parameters(widths[0]) if owns else 0
            self._whole[whole] = cost.replaced("parameters", parameters)
        return self._whole[whole]

    def bound(self, node: Node) -> bool:
        """Whether the data decide on its useful FLOPs."""
        parts = self._parts(node.op, node_widths(self.graph, node), "forward")
        return any(part.bound for part in parts)

    def _kept_first(self, node: Node) -> int:
        """Channels of inputs that the backward pass reads and no node before has kept."""
        if not node.op.keeps_inputs():
            return 0
        sources = {source.id: source for source in self.graph.inputs(node.id)}
        new = [source for id, source in sources.items() if id not in self._kept]
        self._kept.update(source.id for source in new)
        return sum(map(_width, new))

    def _of_op(self, node: Node, widths: tuple[int, ...]) -> Cost:
        if isinstance(node.op, Tokens):
            return Cost({})
        values = {key: self._value(key, node.op, widths) for key in self.keys - OF_NODES}
        return Cost({key: value for key, value in values.items() if value != 0})

    def _value(self, key: str, op: Op, widths: tuple[int, ...]) -> Count:
        match key.split("."):
            case ["flops", name, "executed"]:
                return _sum(executed(op, self._parts(op, widths, name), self.work, name))
            case ["flops", name, count]:
                parts = self._parts(op, widths, name)
                flops = [part.backward if name == "backward" else part.forward for part in parts]
                return _sum(getattr(each, count) for each in flops)
            case ["bytes", name, way]:
                return _sum(getattr(part, way) for part in self._parts(op, widths, name))
            case ["activation_bytes"]:
                return _sum(part.saved for part in self._parts(op, widths, "training"))
            case ["cache_bytes"]:
                return op.cache_bytes(widths[0], self.cached)
            case ["cache_bound_bytes"]:
                return op.bound_bytes(widths[0], self.cached)
        raise AssertionError(key)

    def _parts(self, op: Op, widths: tuple[int, ...], name: str) -> list[Part]:
        """Of a pass: forward, training, backward or step."""
        key = (op, widths, name)
        if key not in self._known_parts:
            self._known_parts[key] = parts_of(op, widths, self.work, self.cached, name)
        return self._known_parts[key]


OF_NODES = frozenset({"parameters"})
"""What depends on more than the op."""


def node_widths(graph: Graph, node: Node) -> tuple[int, ...]:
    """Channels of its inputs, then of its output; 0 for what reads or gives token ids."""
    return (*map(_width, graph.inputs(node.id)), _width(node))


def parts_of(
    op: Op, widths: tuple[int, ...], work: Workload, cached: Workload, name: str
) -> list[Part]:
    """Of an op with inputs and an output of these widths."""
    if name == "step":
        return _step_parts(op, widths, cached)
    return _parts(op, widths, work if name == "forward" else replace(work, training=True))


def _width(node: Node) -> int:
    last = node.type.axes[-1]
    return last if isinstance(last, int) else 0


def _parts(op: Op, widths: tuple[int, ...], work: Workload) -> list[Part]:
    """Those of the op; where it tells none, a pass over its streams."""
    *inputs, output = widths
    found = op.parts(widths[0], work)
    if not found and isinstance(op, Pointwise):
        found = [elementwise(type(op).__name__, work, sum(inputs), output)]
    return found


def _step_parts(op: Op, widths: tuple[int, ...], work: Workload) -> list[Part]:
    if isinstance(op, Pointwise):
        return _parts(op, widths, work.one)
    return op.step_parts(widths[0], work)


def _sum(values: Iterable[Count]) -> Count:
    return sum(values, 0)
