"""The class of a layer: its modules and its forward."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Graph, LayerInfo
from .expression import Call, constructor
from .naming import place_of
from .serve import parts_of
from .shape import LayerShape
from .statement import Statement, statements, written


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a layer: `self.name = call`, or `= self.alias` where the weights are tied."""

    name: str
    call: Call
    alias: str | None
    width: int
    out: int
    parameters: int
    place: str | None


@dataclass(frozen=True, slots=True)
class LayerClass:
    """A class of layers. indices: the layers of this class. place: `file:line` of the first.
    served: what runs its mixers, a line each."""

    name: str
    label: str
    indices: tuple[int, ...]
    place: str | None
    shape: LayerShape
    modules: tuple[Module, ...]
    statements: tuple[Statement, ...]
    result: str
    served: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Of one layer."""
        return sum(module.parameters for module in self.modules if module.alias is None)

    @property
    def takes_x0(self) -> bool:
        return self.shape.takes_x0


def plan_layer(graph: Graph, shape: LayerShape, layers: list[LayerInfo], name: str) -> LayerClass:
    """The class of the layers that have this shape."""
    first = layers[0]
    lines, result = statements(shape)
    modules = [
        Module(
            step.name,
            constructor(step.op, step.width),
            step.alias,
            step.width,
            step.type.width,
            step.op.parameters(step.width),
            place_of(graph[id].span),
        )
        for step, id in zip(shape.steps, first.nodes, strict=True)
        if not written(step.op)
    ]
    return LayerClass(
        name=name,
        label=first.label,
        indices=tuple(layer.index for layer in layers),
        place=place_of(first.span),
        shape=shape,
        modules=tuple(modules),
        statements=lines,
        result=result,
        served=tuple(part.line for part in parts_of(graph, first)),
    )
