"""What a layer computes, apart from its weights and its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..ir.graph import Graph, LayerInfo, TensorType
from ..primitives.base import Op
from .naming import attribute, unused

X, X0 = 0, 1
"""The values that every layer starts from: its input and the embeddings."""


@dataclass(frozen=True, slots=True)
class Step:
    """One op on earlier values. Values are numbered: X, X0, then the steps.

    alias: name of the earlier step of this layer whose weights it shares.
    """

    name: str
    op: Op
    inputs: tuple[int, ...]
    width: int
    type: TensorType
    alias: str | None


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What a layer computes, apart from its weights and its place."""

    steps: tuple[Step, ...]
    output: int

    @property
    def takes_x0(self) -> bool:
        return self.output == X0 or any(X0 in step.inputs for step in self.steps)

    def without_x0(self) -> LayerShape:
        """The same with x in place of x0: what it computes where both are one value."""
        merged = {X0: X}
        steps = tuple(
            replace(step, inputs=tuple(merged.get(value, value) for value in step.inputs))
            for step in self.steps
        )
        return LayerShape(steps, merged.get(self.output, self.output))


def shape_of(graph: Graph, layer: LayerInfo) -> LayerShape:
    """What a layer of the graph computes."""
    values = {"embedding": X0, layer.input: X}
    names: set[str] = set()
    first: dict[str, str] = {}
    steps = []
    for number, id in enumerate(layer.nodes):
        node = graph[id]
        inputs = tuple(values[source.id] for source in graph.inputs(id))
        name = unused(attribute(node.name), names)
        alias = first.get(node.weights)
        steps.append(Step(name, node.op, inputs, graph.width(node), node.type, alias))
        names.add(name)
        first.setdefault(node.weights, name)
        values[id] = number + 2
    return LayerShape(tuple(steps), values[layer.output])
