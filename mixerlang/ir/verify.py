"""What holds of every graph. A violation is a bug of the compiler, never of a spec."""

from __future__ import annotations

from .graph import Graph


def verify(graph: Graph) -> None:
    """Assert the invariants that passes and code generation rely on."""
    order = {node.id: place for place, node in enumerate(graph)}
    sources: dict[str, set[str]] = {id: set() for id in order}
    for source, target, data in graph.digraph.edges(data=True):
        assert data["type"] is graph[source].type, (source, target)
        assert order[source] < order[target], (source, target)  # so there is no cycle
        sources[target].add(source)
    for node in graph:
        owner = graph[node.weights]
        assert owner.weights == owner.id, f"{node.id} is tied to the tied {owner.id}"
        assert type(owner.op) is type(node.op), (node.id, owner.id)
        assert node.type.axes[:2] == ("B", "T"), node.id
    for layer in graph.layers:
        assert layer.output in layer.nodes or layer.output == layer.input, layer.index
        within = {*layer.nodes, layer.input, "embedding"}
        for id in layer.nodes:
            assert sources[id] <= within, id
