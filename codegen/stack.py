"""The list of layers: which classes in which order, and which modules layers share."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Graph, LayerInfo, Node
from .expression import WIDTH
from .shape import LayerShape

Shapes = list[LayerShape]


@dataclass(frozen=True, slots=True)
class Entry:
    """One layer: a new instance of a class, or the instance of the layer `owner` again."""

    class_name: str
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """Layers whose module `name` is the one that layer `owner` has as `owner_name`."""

    owner: int
    owner_name: str
    name: str
    layers: tuple[int, ...]


def entries(graph: Graph, shapes: Shapes, names: list[str]) -> tuple[Entry, ...]:
    """The layers in order, given the names of their classes."""
    return tuple(
        Entry(name, _whole_owner(graph, shapes, layer))
        for name, layer in zip(names, graph.layers, strict=True)
    )


def sharings(graph: Graph, shapes: Shapes) -> tuple[Sharing, ...]:
    """Modules that layers share one by one, not with their whole layer."""
    found: dict[tuple[int, str, str], list[int]] = {}
    for layer in graph.layers:
        if _whole_owner(graph, shapes, layer) is None:
            for name, owner, owner_name in _borrowed(graph, shapes, layer):
                if owner != layer.index:
                    found.setdefault((owner, owner_name, name), []).append(layer.index)
    return tuple(Sharing(*key, tuple(layers)) for key, layers in found.items())


def _whole_owner(graph: Graph, shapes: Shapes, layer: LayerInfo) -> int | None:
    """The earlier layer whose every weight this one uses in the same places, if any."""
    owners = {owner for _, owner, _ in _borrowed(graph, shapes, layer)} - {layer.index}
    if len(owners) != 1:
        return None
    (owner,) = owners
    if shapes[owner] != shapes[layer.index]:
        return None
    pairs = [
        (graph[id], graph[other])
        for id, other in zip(layer.nodes, graph.layers[owner].nodes, strict=True)
        if _weighs(graph, graph[id])
    ]
    return owner if all(node.weights == other.weights for node, other in pairs) else None


def _borrowed(graph: Graph, shapes: Shapes, layer: LayerInfo) -> list[tuple[str, int, str]]:
    """(name, layer of the owner, name there) of each module with weights of another node."""
    found = []
    for step, id in zip(shapes[layer.index].steps, layer.nodes, strict=True):
        node = graph[id]
        if node.weights != id and _weighs(graph, node):
            owner = graph[node.weights]
            assert owner.layer is not None, node
            place = graph.layers[owner.layer].nodes.index(owner.id)
            found.append((step.name, owner.layer, shapes[owner.layer].steps[place].name))
    return found


def _weighs(graph: Graph, node: Node) -> bool:
    return node.op.parameters(graph.width(node)) > 0


# ------------------------------------------------------------------------------- as Python text


def construction(layers: tuple[Entry, ...], indent: int) -> list[str]:
    """Statements that build `self.layers`."""
    pad = " " * indent
    if not layers:
        return [f"{pad}self.layers = nn.ModuleList()"]
    shared = _shared_names(layers)
    if not shared:
        return _of_classes([entry.class_name for entry in layers], indent)
    lines = [f"{pad}{name} = {layers[i].class_name}()" for i, name in shared.items()]
    items = [
        shared.get(i if entry.owner is None else entry.owner, f"{entry.class_name}()")
        for i, entry in enumerate(layers)
    ]
    if len(set(items)) == 1:
        return [*lines, f"{pad}self.layers = nn.ModuleList([{items[0]}] * {len(items)})"]
    return [*lines, *filled(f"{pad}self.layers = nn.ModuleList([", items, "])", indent, ", ")]


def _of_classes(names: list[str], indent: int) -> list[str]:
    """A new layer for each name."""
    pad, terms = " " * indent, pattern(names)
    total = " + ".join(terms)
    line = f"{pad}self.layers = nn.ModuleList(layer() for layer in {total})"
    if len(line) <= WIDTH:
        return [line]
    stack = [f"{pad}stack = {total}"]
    if len(stack[0]) > WIDTH:
        items = terms if len(terms) > 1 else names
        ends = ("(", ")", " + ") if len(terms) > 1 else ("[", "]", ", ")
        stack = filled(f"{pad}stack = {ends[0]}", items, ends[1], indent, ends[2])
    return [*stack, f"{pad}self.layers = nn.ModuleList(layer() for layer in stack)"]


def _shared_names(layers: tuple[Entry, ...]) -> dict[int, str]:
    owners = sorted({entry.owner for entry in layers if entry.owner is not None})
    return {owner: f"shared{n or ''}" for n, owner in enumerate(owners)}


def pattern(names: list[str]) -> list[str]:
    """A list of names as terms of a sum of lists: `[A, B] * 12`, or `[A] * 3` and `[B, C]`."""
    period = _period(names)
    times = len(names) // period
    if times > 1 and period > 1:
        unit = pattern(names[:period])
        inner = unit[0] if len(unit) == 1 else f"({' + '.join(unit)})"
        return [f"{inner} * {times}"]
    terms: list[str] = []
    single: list[str] = []
    for name, count in _runs(names):
        if count > 2:
            terms += [_list(single), f"[{name}] * {count}"]
            single = []
        else:
            single += [name] * count
    return [term for term in [*terms, _list(single)] if term]


def _list(names: list[str]) -> str:
    return f"[{', '.join(names)}]" if names else ""


def _period(names: list[str]) -> int:
    """The shortest unit that repeats to the whole list."""
    n = len(names)
    for period in range(1, n + 1):
        if n % period == 0 and names[:period] * (n // period) == names:
            return period
    return n


def _runs(names: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return runs


def filled(head: str, items: list[str], tail: str, indent: int, between: str) -> list[str]:
    """head + items + tail on one line, or the items on lines of their own, filled."""
    line = head + between.join(items) + tail
    if len(line) <= WIDTH:
        return [line]
    pad = " " * (indent + 4)
    lines, row = [head.rstrip()], pad
    for number, item in enumerate(items):
        piece = item if number == len(items) - 1 else item + between
        if len(row) + len(piece.rstrip()) > WIDTH and row.strip():
            lines.append(row.rstrip())
            row = pad
        row += piece
    return [*lines, row, " " * indent + tail]
