"""What holds of every graph. A violation is a bug of the compiler, never of a spec."""

from __future__ import annotations

from .graph import Graph


def verify(graph: Graph) -> None:
    """Assert the invariants that passes and code generation rely on."""
    order = {node.id: place for place, node in enumerate(graph)}
    sources = {node.id: {source.id for source in graph.inputs(node.id)} for node in graph}
    for node in graph:
        # so there is no cycle
        assert all(order[source] < order[node.id] for source in sources[node.id]), node.id
        owner = graph[node.weights]
        assert owner.weights == owner.id, f"{node.id} is tied to the tied {owner.id}"
        assert type(owner.op) is type(node.op), (node.id, owner.id)
        assert node.type.axes[:2] == ("B", "T"), node.id
    for layer in graph.layers:
        assert layer.output in layer.nodes or layer.output == layer.input, layer.index
        within = {*layer.nodes, layer.input, "embedding"}
        for id in layer.nodes:
            assert sources[id] <= within, id
