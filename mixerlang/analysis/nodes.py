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
from .metrics import COUNTS, Cost


@dataclass
class Costs:
    """Costs of the nodes of a graph for a workload: a call's new tokens, and a step after as many
    in a cache. cached: the workload whose length is that of the cache."""

    graph: Graph
    work: Workload
    cached: Workload
    _known: dict[tuple[Op, tuple[int, ...]], Cost] = field(default_factory=dict)
    _whole: dict[tuple[int, int, bool], Cost] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)

    def of(self, node: Node) -> Cost:
        """One object for all nodes that cost the same. A tensor that several nodes keep for
        backward counts for the first."""
        widths = tuple(_width(source) for source in self.graph.inputs(node.id))
        key = (node.op, (*widths, node.type.width if widths else 0))
        if key not in self._known:
            self._known[key] = self._of_op(node, key[1])
        cost, kept, owns = self._known[key], self._kept_first(node), node.weights == node.id
        whole = (id(cost), kept, owns)
        if whole not in self._whole:
            inputs = self.work.bytes_per_element * self.work.tokens * kept
            cost = cost.replaced("activation_bytes", cost["activation_bytes"] + inputs)
            parameters = node.op.parameters(widths[0] if widths else 0) if owns else 0
            self._whole[whole] = cost.replaced("parameters", parameters)
        return self._whole[whole]

    def _kept_first(self, node: Node) -> int:
        """Channels of inputs that the backward pass reads and no node before has kept."""
        if not node.op.keeps_inputs():
            return 0
        sources = {source.id: source for source in self.graph.inputs(node.id)}
        new = [source for id, source in sources.items() if id not in self._kept]
        self._kept.update(source.id for source in new)
        return sum(map(_width, new))

    def _of_op(self, node: Node, widths: tuple[int, ...]) -> Cost:
        op, width = node.op, widths[0]
        if isinstance(op, Tokens):
            return Cost({})
        training = replace(self.work, training=True)
        passes = {
            "forward": _parts(op, widths, self.work),
            "training": _parts(op, widths, training),
            "step": _step_parts(op, widths, self.cached),
        }
        values: dict[str, Count] = {}
        for name, parts in passes.items():
            flops = executed(op, parts, self.work, name)
            for count, value in zip(COUNTS, flops, strict=True):
                values[f"flops.{name}.{count}"] = value
        back = executed(op, passes["training"], self.work, "backward")
        values |= {f"flops.backward.{count}": x for count, x in zip(COUNTS, back, strict=True)}
        for name in ("forward", "step"):
            values[f"bytes.{name}.read"] = _sum(part.read for part in passes[name])
            values[f"bytes.{name}.written"] = _sum(part.written for part in passes[name])
        values["activation_bytes"] = _sum(part.saved for part in passes["training"])
        values["cache_bytes"] = op.cache_bytes(width, self.cached)
        values["cache_bound_bytes"] = op.bound_bytes(width, self.cached)
        return Cost({key: value for key, value in values.items() if value != 0})


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
