"""What a model costs at a given batch and length, layer by layer, in numbers and expressions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..algebra import Count, number, symbol
from ..ir.graph import Graph, LayerInfo, Tokens
from ..primitives import Mixer
from ..primitives.part import Workload
from ..source import Span
from .memory import memory
from .metrics import METRICS, Cost
from .nodes import Costs

SCHEMA = 1
"""Of the JSON object. It grows by fields alone as long as this stays."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by dtype."""

BACKENDS = ("eager", "kernels")
"""Whose cache is counted."""


@dataclass(frozen=True)
class LayerCost:
    """A layer. mixer: the words of its mixers, `attention`, `attention + recurrence`. bound:
    whether its useful FLOPs are the most that they can be, as the data decide."""

    index: int
    label: str
    mixer: str
    cost: Cost
    span: Span | None
    bound: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "label": self.label,
            "mixer": self.mixer,
            "useful_at_most": self.bound,
            **self.cost.as_json(),
            "line": None if self.span is None else self.span.begin[0],
        }


@dataclass(frozen=True)
class Breakdown:
    """The costs of a model: of its layers, and by name of what is not in a layer, in the order it
    runs."""

    layers: tuple[LayerCost, ...]
    outside: dict[str, Cost]

    @cached_property
    def total(self) -> Cost:
        return Cost.sum([*(layer.cost for layer in self.layers), *self.outside.values()])


@dataclass(frozen=True)
class Analysis:
    """The costs of a model in numbers, and with symbols in their place: B sequences of T tokens, or
    of L in a cache. symbolic: the graph for these, where params are symbols too."""

    graph: Graph
    batch: int
    length: int
    dtype: str
    backend: str
    symbolic: Graph | None = None

    @property
    def model(self) -> str:
        return self.graph.name

    @property
    def params(self) -> dict[str, object]:
        return self.graph.params

    @cached_property
    def costs(self) -> Breakdown:
        return self._breakdown(self.graph, self.batch, self.length, self.length)

    @cached_property
    def formulas(self) -> Breakdown:
        keys = (key for key in METRICS if self.symbolic is None or not key.endswith(".executed"))
        return self.formulas_of(keys)

    def formulas_of(self, keys: Iterable[str]) -> Breakdown:
        """Of some metrics alone."""
        symbols = symbol("B"), symbol("T"), symbol("L")
        return self._breakdown(self.symbolic or self.graph, *symbols, frozenset(keys))

    @property
    def given(self) -> tuple[tuple[str, int], ...]:
        """Values of the params that symbols stand for: ranges of lengths are those for them."""
        return tuple((name, value) for name, value in self.params.items()
                     if self.symbolic is not None and isinstance(value, int))

    @property
    def layers(self) -> tuple[LayerCost, ...]:
        return self.costs.layers

    @property
    def outside(self) -> dict[str, Cost]:
        return self.costs.outside

    @property
    def total(self) -> Cost:
        return self.costs.total

    @property
    def weight_bytes(self) -> int:
        return self.total.parameters * BYTES[self.dtype]

    @cached_property
    def memory(self) -> dict[str, int]:
        """Bytes of the whole model, by key of the JSON object."""
        found = self._memory(self.costs, self.batch, self.length)
        return {key: number(value) for key, value in found.items()}

    @cached_property
    def memory_formulas(self) -> dict[str, Count]:
        return self._memory(self.formulas, symbol("B"), symbol("T"))

    def _memory(self, costs: Breakdown, batch: Count, length: Count) -> dict[str, Count]:
        layers = [layer.cost for layer in costs.layers]
        work = Workload(batch, length, BYTES[self.dtype], self.backend == "kernels")
        return memory(self.graph, layers, costs.total, work)

    def _breakdown(
        self, graph: Graph, batch: Count, length: Count, cached: Count,
        keys: frozenset[str] = frozenset(METRICS),
    ) -> Breakdown:  # fmt: skip
        element, kernels = BYTES[self.dtype], self.backend == "kernels"
        costs = Costs(
            graph,
            Workload(batch, length, element, kernels),
            Workload(batch, cached, element, kernels),
            keys,
        )
        return _breakdown(graph, costs)


def _breakdown(graph: Graph, costs: Costs) -> Breakdown:
    """Nodes in the order they run, so that what is kept for backward counts where it is kept
    first."""
    own = {id: layer.index for layer in graph.layers for id in layer.nodes}
    layers: dict[int, list[Cost]] = {layer.index: [] for layer in graph.layers}
    outside: dict[str, Cost] = {}
    for node in graph:
        if node.id in own:
            layers[own[node.id]].append(costs.of(node))
        elif not isinstance(node.op, Tokens):
            outside[node.name] = costs.of(node)
    sums: dict[tuple[int, ...], Cost] = {}
    for parts in layers.values():
        key = tuple(map(id, parts))
        if key not in sums:
            sums[key] = Cost.sum(parts)
    found = (_layer(graph, layer, sums[tuple(map(id, layers[layer.index]))], costs)
             for layer in graph.layers)
    return Breakdown(tuple(found), outside)


def _layer(graph: Graph, layer: LayerInfo, cost: Cost, costs: Costs) -> LayerCost:
    nodes = [graph[id] for id in layer.nodes]
    mixers = " + ".join(node.op.word for node in nodes if isinstance(node.op, Mixer))
    bound = any(costs.bound(node) for node in nodes)
    return LayerCost(layer.index, layer.label, mixers or "none", cost, layer.span, bound)


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
    return Analysis(graph, batch, length, dtype, backend)
