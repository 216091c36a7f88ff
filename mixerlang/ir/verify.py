"""What holds of every graph. A violation is a bug of the compiler, never of a spec."""

from __future__ import annotations

import networkx as nx

from .graph import Graph


def verify(graph: Graph) -> None:
    """Assert the invariants that passes and code generation rely on."""
    digraph = graph.digraph
    assert nx.is_directed_acyclic_graph(digraph), "the graph has a cycle"
    order = {node.id: place for place, node in enumerate(graph)}
    for source, target, data in digraph.edges(data=True):
        assert data["type"] == graph[source].type, (source, target)
        assert order[source] < order[target], (source, target)
    for node in graph:
        owner = graph[node.weights]
        assert owner.weights == owner.id, f"{node.id} is tied to the tied {owner.id}"
        assert type(owner.op) is type(node.op), (node.id, owner.id)
        assert node.type.axes[:2] == ("B", "T"), node.id
    for layer in graph.layers:
        assert layer.output in layer.nodes or layer.output == layer.input, layer.index
        for id in layer.nodes:
            sources = {source.id for source in graph.inputs(id)}
            assert sources <= {*layer.nodes, layer.input, "embedding"}, id
