"""The plan of a model's source: what the generated file will say, as plain data.

Layers that compute the same thing, apart from their weights, share one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from ..ir.graph import Graph, LayerInfo, Node
from ..primitives.model import Embedding, Head
from . import package
from .expression import Call, classes_of, constructor
from .layer import LayerClass, plan_layer
from .naming import class_name
from .shape import LayerShape, shape_of
from .stack import Entry, Sharing, entries, sharings

TAKEN = frozenset({"Cache", "Context", "Layer", "Model", "Output", "Tensor", "nn", "F", "torch"})
"""Names that every generated model uses."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A model's source.

    imports: file of nn/ -> names. classes: of the layers, in the order of their first use.
    entries: the layers in order. sharings: modules that layers share. files: what is carried along.
    """

    name: str
    class_name: str
    graph: Graph
    imports: dict[str, tuple[str, ...]]
    classes: tuple[LayerClass, ...]
    entries: tuple[Entry, ...]
    sharings: tuple[Sharing, ...]
    embedding: Embedding
    head: Head
    final_norm: Call | None
    init: Call
    files: tuple[PurePosixPath, ...]

    @property
    def passes_x0(self) -> bool:
        """Whether some layer reads the embeddings."""
        return any(layer.takes_x0 for layer in self.classes)


def make_plan(graph: Graph) -> Plan:
    """The plan of a verified graph."""
    shapes = _shapes(graph)
    classes = _classes(graph, shapes)
    by_shape = {layer.shape: layer for layer in classes}
    embedding, head = graph["embedding"].op, graph["head"].op
    assert isinstance(embedding, Embedding) and isinstance(head, Head)
    final_norm = _final_norm(graph)
    init = constructor(graph.fields.init)
    calls = [init, *([final_norm] if final_norm else [])]
    calls += [module.call for layer in classes for module in layer.modules]
    imports = _imports(calls)
    names = [by_shape[shape].name for shape in shapes]
    return Plan(
        name=graph.name,
        class_name=class_name(graph.name, "", _used(imports) | {c.name for c in classes}),
        graph=graph,
        imports=imports,
        classes=classes,
        entries=entries(graph, shapes, names),
        sharings=sharings(graph, shapes),
        embedding=embedding,
        head=head,
        final_norm=final_norm,
        init=init,
        files=tuple(package.closure([*(package.Path(file) for file in imports), *_BASE])),
    )


_BASE = tuple(package.Path("nn", f"{name}.py") for name in ("__init__", "mixer", "model"))


def _shapes(graph: Graph) -> list[LayerShape]:
    """What each layer computes. A layer on the embeddings cannot tell x from x0 by its edges, so
    it takes the form of a later layer that would compute the same."""
    shapes = [shape_of(graph, layer) for layer in graph.layers]
    forms = {shape.without_x0(): shape for shape in reversed(shapes) if shape.takes_x0}
    return [
        forms.get(shape, shape) if _on_embedding(graph, layer) else shape
        for shape, layer in zip(shapes, graph.layers, strict=True)
    ]


def _on_embedding(graph: Graph, layer: LayerInfo) -> bool:
    return layer.input == "embedding"


def _classes(graph: Graph, shapes: list[LayerShape]) -> tuple[LayerClass, ...]:
    members: dict[LayerShape, list[LayerInfo]] = {}
    for shape, layer in zip(shapes, graph.layers, strict=True):
        members.setdefault(shape, []).append(layer)
    taken = set(TAKEN) | package.classes().keys()
    planned = []
    for shape, layers in members.items():
        name = class_name(layers[0].label, "Layer", taken)
        taken.add(name)
        planned.append(plan_layer(graph, shape, layers, name))
    return tuple(planned)


def _final_norm(graph: Graph) -> Call | None:
    """The norm between the last layer and the head, if there is one."""
    node: Node = graph.inputs("head")[0]
    if node.id != "final_norm":
        return None
    return constructor(node.op, graph.width(node))


def _imports(calls: list[Call]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for call in calls:
        for name in classes_of(call):
            found.setdefault(str(_file(name)), set()).add(name)
    return {file: tuple(sorted(names)) for file, names in sorted(found.items())}


def _file(name: str) -> package.Path:
    known = package.classes()
    assert name in known, f"nn/ has no {name}"
    return known[name]


def _used(imports: dict[str, tuple[str, ...]]) -> set[str]:
    return set(TAKEN) | {name for names in imports.values() for name in names}
