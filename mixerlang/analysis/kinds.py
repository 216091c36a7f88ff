"""Layers of one label that cost the same, and what stands around them."""

from __future__ import annotations

from dataclasses import dataclass

from ..algebra import Count
from ..ir.groups import spell_indices
from .metrics import Cost
from .report import Analysis, LayerCost

OWN = frozenset({"parameters", "activation_bytes"})
"""What may differ among layers of a kind: a shared weight, a shared tensor counts for the first."""


@dataclass(frozen=True)
class Kind:
    """cost, formula: of all its layers together, in numbers and in symbols. line: in the spec."""

    name: str
    mixer: str
    indices: tuple[int, ...]
    cost: Cost
    formula: Cost
    line: int | None = None

    @property
    def layers(self) -> str:
        return spell_indices(list(self.indices))


def kinds(analysis: Analysis) -> list[Kind]:
    """Of the layers, in the order of their first."""
    found: dict[object, list[LayerCost]] = {}
    values: dict[int, tuple[Count, ...]] = {}
    for layer in analysis.layers:
        cost = layer.cost
        if id(cost) not in values:
            values[id(cost)] = tuple(cost[key] for key in cost if key not in OWN)
        found.setdefault((layer.label, layer.mixer, values[id(cost)]), []).append(layer)
    return [_kind(analysis, layers) for layers in found.values()]


def outside(analysis: Analysis) -> list[Kind]:
    """What is in no layer."""
    formulas = analysis.formulas.outside
    return [Kind(name, "", (), cost, formulas[name]) for name, cost in analysis.outside.items()]


def _kind(analysis: Analysis, layers: list[LayerCost]) -> Kind:
    first = layers[0]
    formulas = analysis.formulas.layers
    return Kind(
        first.label,
        first.mixer,
        tuple(layer.index for layer in layers),
        Cost.sum(layer.cost for layer in layers),
        Cost.sum(formulas[layer.index].cost for layer in layers),
        None if first.span is None else first.span.begin[0],
    )
