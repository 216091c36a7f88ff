"""A graph as plain data, for programs."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from ..graph import Graph, LayerInfo, Node
from ..spelling import spell

SCHEMA = 1
"""Of the JSON object. It grows by fields alone as long as this stays."""


def as_json(graph: Graph) -> dict[str, Any]:
    """Nodes in the order they run, each with what it reads, and the layers they belong to."""
    return {
        "schema": SCHEMA,
        "model": graph.name,
        "parameters": graph.parameters(),
        "layers": [_layer(layer) for layer in graph.layers],
        "nodes": [_node(graph, node) for node in graph],
    }


def _layer(layer: LayerInfo) -> dict[str, Any]:
    return {
        "index": layer.index,
        "label": layer.label,
        "nodes": list(layer.nodes),
        "input": layer.input,
        "output": layer.output,
        "line": None if layer.span is None else layer.span.begin[0],
    }


def _node(graph: Graph, node: Node) -> dict[str, Any]:
    """type: the axes of the output. weights: the node that owns the weights."""
    return {
        "id": node.id,
        "layer": node.layer,
        "op": type(node.op).__name__,
        "spelled": spell(node.op),
        "inputs": [source.id for source in graph.inputs(node.id)],
        "type": list(node.type.axes),
        "weights": node.weights,
        "line": None if node.span is None else node.span.begin[0],
    }


def digest(graph: Graph) -> str:
    """Equal for specs that make the same model, whatever their layout and names of values."""
    what = [
        spell(graph.fields),
        *(
            [node.id, type(node.op).__name__, spell(node.op), node.weights]
            + [source.id for source in graph.inputs(node.id)]
            for node in graph
        ),
    ]
    return sha256(json.dumps(what).encode()).hexdigest()
