"""What a model costs at a given batch and length: parameters, forward FLOPs, decoding cache.

A multiply-add is two FLOPs; `dense` counts every score of a mixer, masked or not. Norms,
activations and softmax are not counted. The cache is the one that `new_cache(batch, length)` gives:
of plain PyTorch, or with backend="kernels" that of the kernels, on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..ir.graph import Graph, LayerInfo, Node
from ..primitives import Mixer, Workload
from ..source import Span

SCHEMA = 1
"""Of the JSON object. It grows by fields alone as long as this stays."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by dtype."""

BACKENDS = ("eager", "kernels")
"""Whose cache is counted."""


@dataclass(frozen=True)
class Cost:
    """parameters: trainable ones, shared weights once, where they are first used."""

    parameters: int = 0
    flops_forward_dense: int = 0
    cache_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.flops_forward_dense + other.flops_forward_dense,
            self.cache_bytes + other.cache_bytes,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "flops": {"forward": {"dense": self.flops_forward_dense}},
            "cache_bytes": self.cache_bytes,
        }


@dataclass(frozen=True)
class LayerCost:
    """A layer. mixer: the words of its mixers, `attention`, `attention + recurrence`."""

    index: int
    label: str
    mixer: str
    cost: Cost
    span: Span | None

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "label": self.label,
            "mixer": self.mixer,
            **self.cost.as_json(),
            "line": None if self.span is None else self.span.begin[0],
        }


@dataclass(frozen=True)
class Analysis:
    """The costs of a model. outside: of what is not in a layer, by name, in the order it runs."""

    model: str
    params: dict[str, object]
    batch: int
    length: int
    dtype: str
    backend: str
    layers: tuple[LayerCost, ...]
    outside: dict[str, Cost]

    @property
    def total(self) -> Cost:
        return sum([*(layer.cost for layer in self.layers), *self.outside.values()], Cost())

    @property
    def weight_bytes(self) -> int:
        return self.total.parameters * BYTES[self.dtype]

    def as_json(self) -> dict[str, Any]:
        """The object of `mixerlang analyze --json`."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "params": {name: _plain(value) for name, value in self.params.items()},
            "batch": self.batch,
            "length": self.length,
            "dtype": self.dtype,
            "backend": self.backend,
            **self.total.as_json(),
            "weight_bytes": self.weight_bytes,
            "layers": [layer.as_json() for layer in self.layers],
            "outside": {name: cost.as_json() for name, cost in self.outside.items()},
        }


def analyze(
    graph: Graph,
    batch: int = 1,
    length: int | None = None,
    dtype: str | None = None,
    backend: str = "eager",
) -> Analysis:
    """The costs of `batch` sequences of `length` tokens.

    length: default the model's context. dtype: of weights and cache, default the model's. backend:
    whose cache, `eager` or `kernels`.
    """
    length = graph.fields.context if length is None else length
    dtype = graph.fields.dtype if dtype is None else dtype
    for name, value in (("batch", batch), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if dtype not in BYTES:
        raise ValueError(f"dtype must be one of {', '.join(BYTES)}, not {dtype}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend}")
    work = Workload(batch, length, BYTES[dtype], backend == "kernels")
    layers = tuple(_layer(graph, layer, work) for layer in graph.layers)
    outside = {
        node.name: _cost(graph, [node], work)
        for node in graph
        if node.layer is None and node.op.kind != "tokens"
    }
    return Analysis(
        graph.name, dict(graph.params), batch, length, dtype, backend, layers, outside
    )


def _layer(graph: Graph, layer: LayerInfo, work: Workload) -> LayerCost:
    nodes = [graph[id] for id in layer.nodes]
    mixers = " + ".join(node.op.word for node in nodes if isinstance(node.op, Mixer))
    return LayerCost(
        layer.index, layer.label, mixers or "none", _cost(graph, nodes, work), layer.span
    )


def _cost(graph: Graph, nodes: Iterable[Node], work: Workload) -> Cost:
    return sum((_of_node(graph, node, work) for node in nodes), Cost())


def _of_node(graph: Graph, node: Node, work: Workload) -> Cost:
    width = graph.width(node)
    return Cost(
        node.op.parameters(width) if node.weights == node.id else 0,
        node.op.forward_flops(width, work),
        node.op.cache_bytes(width, work),
    )


def _plain(value: object) -> object:
    """A param's value in JSON: numbers as they are, anything else as text."""
    return value if isinstance(value, bool | int | float) else str(value)
