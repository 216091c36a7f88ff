"""What views say of nodes, layers and places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from ...primitives import Op
from ...primitives.model import Embedding, Head
from ...primitives.pointwise import Add, Multiply, ScaleBy
from ...source import Span
from ..graph import Graph, LayerInfo, Node
from ..groups import Group, inputs_of, spell_indices
from ..spelling import spell

SIGNS: dict[type[Op], str] = {Add: "+", Multiply: "*"}
"""Ops that are written between their inputs."""


@dataclass(frozen=True)
class Row:
    """A node of a layer: its name, what it computes, the names of what it reads.

    sign: "+" or "*" where that is all it computes. width: of its output, where the input's differs.
    infix: whether the text says what it reads.
    """

    name: str
    text: str
    inputs: tuple[str, ...]
    sign: str | None = None
    width: int | None = None
    infix: bool = False


def rows(graph: Graph, group: Group) -> list[Row]:
    """The nodes of a layer in the order they run."""
    return [_row(graph, group.first, graph[id]) for id in group.first.nodes]


def _row(graph: Graph, layer: LayerInfo, node: Node) -> Row:
    op, inputs = node.op, tuple(inputs_of(graph, layer, node))
    sign = SIGNS.get(type(op))
    width = node.type.width if node.type.width != graph.width(node) else None
    if sign is not None:
        return Row(node.name, f" {sign} ".join(inputs), inputs, sign, width, infix=True)
    if isinstance(op, ScaleBy):
        text = f"{spell(op.factor)} * {inputs[0]}"
        return Row(node.name, text, inputs, None, width, infix=True)
    return Row(node.name, spell(op), inputs, None, width)


def about_embedding(op: Embedding) -> str:
    scale = f", times {op.scale:g}" if op.scale != 1 else ""
    return f"{op.vocab:,} tokens to {op.dim:,} channels{scale}"


def about_head(op: Head) -> str:
    text = f"{op.vocab:,} logits"
    if op.tied:
        text += ", the embedding's weight"
    if op.scale != 1:
        text += f", times {op.scale:g}"
    return text if op.softcap is None else f"{text}, softcap {op.softcap:g}"


def outside(graph: Graph) -> tuple[str, str | None, str]:
    """What embedding, final norm (if there is one) and head do."""
    embedding, head = graph["embedding"].op, graph["head"].op
    assert isinstance(embedding, Embedding) and isinstance(head, Head)
    norm = spell(graph["final_norm"].op) if "final_norm" in graph else None
    return about_embedding(embedding), norm, about_head(head)


def caption(graph: Graph, group: Group) -> str:
    """`layers 0,2,...,22 · 13,924,496 parameters each`."""
    several = len(group.layers) > 1
    parameters = layer_parameters(graph, group.first)
    parts = [
        f"layer{'s' * several} {spell_indices(group.indices)}",
        f"{parameters:,} parameters{' each' * several}",
        *_sharing(graph, group.first),
    ]
    return " · ".join(parts)


def layer_parameters(graph: Graph, layer: LayerInfo) -> int:
    """Parameters that a layer uses, shared ones included."""
    nodes = {graph[id].weights: graph[id] for id in layer.nodes}
    return sum(node.op.parameters(graph.width(node)) for node in nodes.values())


def _sharing(graph: Graph, layer: LayerInfo) -> list[str]:
    """Which nodes of a layer share their weights with others."""
    shared = {node.weights for node in graph if node.weights != node.id}
    names = [
        node.name for node in map(graph.__getitem__, layer.nodes)
        if node.weights in shared and node.op.parameters(graph.width(node))
    ]
    return [f"tied: {', '.join(names)}"] if names else []


def place(span: Span | None) -> str:
    """`file.mix:11`, or "" without a place."""
    return "" if span is None else f"{PurePath(span.source.path).name}:{span.begin[0]}"
