"""Layers that are alike, and the pattern they come in: what views and reports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from .graph import Graph, LayerInfo, Node

PERIOD = 64
"""Longest pattern that is looked for."""


@dataclass(frozen=True)
class Group:
    """Layers of one label that compute the same, apart from their weights.

    title: the label, numbered where several groups have it.
    """

    title: str
    layers: tuple[LayerInfo, ...]

    @property
    def first(self) -> LayerInfo:
        return self.layers[0]

    @property
    def indices(self) -> list[int]:
        return [layer.index for layer in self.layers]


@dataclass(frozen=True)
class Repeat:
    """Parts that come `times` times over."""

    times: int
    parts: tuple[Repeat | Group, ...]


Pattern = tuple[Repeat | Group, ...]


def groups_of(graph: Graph) -> list[Group]:
    """The groups in the order of their first layers."""
    shared = {node.weights for node in graph if node.weights != node.id}
    found: dict[object, list[LayerInfo]] = {}
    for layer in graph.layers:
        found.setdefault(_key(graph, layer, shared), []).append(layer)
    titles: dict[str, int] = {}
    groups = []
    for layers in found.values():
        label = layers[0].label
        titles[label] = titles.get(label, 0) + 1
        title = label if titles[label] == 1 else f"{label} ({titles[label]})"
        groups.append(Group(title, tuple(layers)))
    return groups


def _key(graph: Graph, layer: LayerInfo, shared: set[str]) -> object:
    """Equal for layers that go into one group. Tied layers do when they share all weights."""
    nodes = tuple(
        (node.name, node.op, tuple(inputs_of(graph, layer, node)),
         node.weights if node.weights in shared else None)
        for node in map(graph.__getitem__, layer.nodes)
    )
    return layer.label, nodes, place_of(graph, layer, layer.output)


def inputs_of(graph: Graph, layer: LayerInfo, node: Node) -> list[str]:
    """What a node of a layer reads, by names inside the layer; `x` is what enters it."""
    return [place_of(graph, layer, source.id) for source in graph.inputs(node.id)]


def place_of(graph: Graph, layer: LayerInfo, id: str) -> str:
    """The name of a node as seen from a layer: its own, `x`, or `x0`."""
    if id == layer.input:
        return "x"
    return graph[id].name if id in layer.nodes else "x0"


def pattern_of(graph: Graph, groups: Sequence[Group]) -> Pattern:
    """The stack of layers with repetitions folded: ([gdn] * 3 + [attn]) * 6."""
    number = {index: place for place, group in enumerate(groups) for index in group.indices}
    order = [number[layer.index] for layer in graph.layers]
    return tuple(_unfolded(part, groups) for part in fold(order))


def _unfolded(part: int | Fold, groups: Sequence[Group]) -> Repeat | Group:
    if isinstance(part, int):
        return groups[part]
    return Repeat(part.times, tuple(_unfolded(inner, groups) for inner in part.parts))


@dataclass(frozen=True)
class Fold:
    times: int
    parts: tuple[int | Fold, ...]


def fold(items: Sequence[int]) -> list[int | Fold]:
    """Repetitions of up to PERIOD items, those that cover most first, the shorter of equals."""
    found: list[int | Fold] = []
    start = 0
    while start < len(items):
        period, times = _longest(items, start)
        if times > 1:
            unit = items[start : start + period]
            found.append(Fold(times, tuple(fold(unit) if period > 1 else unit)))
        else:
            found.append(items[start])
        start += period * times
    return found


def _longest(items: Sequence[int], start: int) -> tuple[int, int]:
    """The period and the number of its repetitions from `start` on that cover most items."""
    best = (1, 1)
    for period in range(1, min(PERIOD, (len(items) - start) // 2) + 1):
        if items[start + period] != items[start]:
            continue
        times = 1
        unit = items[start : start + period]
        while items[start + times * period : start + (times + 1) * period] == unit:
            times += 1
        if times > 1 and times * period > best[0] * best[1]:
            best = (period, times)
    return best


def spell_pattern(pattern: Pattern) -> str:
    """As a spec would write the list of layers."""
    return " + ".join(_spell_run(list(run), plain) for plain, run in
                      groupby(pattern, key=lambda part: isinstance(part, Group))) or "[]"


def _spell_run(run: list[Repeat | Group], plain: bool) -> str:
    if plain:
        return f"[{', '.join(part.title for part in run if isinstance(part, Group))}]"
    texts = []
    for part in run:
        assert isinstance(part, Repeat)
        inner = spell_pattern(part.parts)
        single = all(isinstance(each, Group) for each in part.parts) or len(part.parts) == 1
        texts.append(f"{inner if single else f'({inner})'} * {part.times}")
    return " + ".join(texts)


def spell_indices(indices: Sequence[int]) -> str:
    """Rising numbers in few characters: 3; 0,2,...,22; 0-5; 0-2,4-6,...,20-22."""
    steps = {b - a for a, b in pairwise(indices)}
    if len(indices) > 3 and len(steps) == 1 and steps != {1}:
        return f"{indices[0]},{indices[1]},...,{indices[-1]}"
    runs = [_spell_ends(run) for run in _runs(indices)]
    if len(runs) > 4:
        runs[2:-1] = ["..."]
    return ",".join(runs)


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """Indices cut where they do not follow one another."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] + 1 == index:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _spell_ends(run: list[int]) -> str:
    return f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0])
