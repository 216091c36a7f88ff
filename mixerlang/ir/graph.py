"""The typed graph of a model: what the compiler reasons about.

Nodes are bound ops (primitives with every size known), edges carry tensor types. A node stands
for one application of an op; `weights` names the node that owns the weights, so that tied nodes
name the same one. The batch B and the length T stay symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..primitives.base import Op
from ..primitives.model import ModelFields
from ..source import Span

if TYPE_CHECKING:
    import networkx as nx

Axis = str | int


@dataclass(frozen=True, slots=True)
class TensorType:
    """Axes of a tensor, sizes or symbols: ("B", "T", 1024)."""

    axes: tuple[Axis, ...]

    @property
    def width(self) -> int:
        """Channels: the last axis."""
        last = self.axes[-1]
        assert isinstance(last, int)
        return last

    def __str__(self) -> str:
        return " ".join(str(axis) for axis in self.axes)


def stream(width: int) -> TensorType:
    """The type of a residual stream."""
    return TensorType(("B", "T", width))


class Tokens(Op):
    """The input of the model: ids (B, T)."""

    kind = "tokens"


@dataclass(frozen=True, slots=True)
class Node:
    """One application of an op.

    id: unique and stable, `layers.3.mixer`; modules take it as their state_dict prefix.
    name: the last part of id. layer: None outside the layers.
    weights: id of the node that owns the weights (its own unless tied).
    type: of the output. span: the line of the spec that put it there.
    """

    id: str
    name: str
    op: Op
    layer: int | None
    weights: str
    type: TensorType
    span: Span | None


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer: its nodes in order, and where its stream enters and leaves.

    label: what the spec calls it (`gdn`). input: id of the node that gives x. output: id of the
    node that x leaves from (the input itself where the layer does nothing).
    """

    index: int
    label: str
    nodes: tuple[str, ...]
    input: str
    output: str
    span: Span | None


@dataclass
class Graph:
    """A model as a graph: nodes by id in the order they run, and the ids that each reads."""

    name: str
    fields: ModelFields
    params: dict[str, object]
    span: Span | None
    layers: list[LayerInfo] = field(default_factory=list)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _sources: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, node: Node, inputs: tuple[str, ...]) -> Node:
        """Append a node whose inputs are there already."""
        assert node.id not in self._nodes, node.id
        assert all(source in self._nodes for source in inputs), inputs
        self._nodes[node.id], self._sources[node.id] = node, inputs
        return node

    def __contains__(self, id: object) -> bool:
        return id in self._nodes

    def __getitem__(self, id: str) -> Node:
        return self._nodes[id]

    def __iter__(self) -> Iterator[Node]:
        """Nodes in the order they run."""
        return iter(self._nodes.values())

    def inputs(self, id: str) -> list[Node]:
        """What a node reads, in order."""
        return [self._nodes[source] for source in self._sources[id]]

    @property
    def digraph(self) -> nx.MultiDiGraph:
        """As a networkx MultiDiGraph over node ids, for its algorithms: node data `node`, edges
        keyed by the input's place with data `type`."""
        import networkx as nx  # takes a fifth of a second, which a compilation does without

        digraph = nx.MultiDiGraph()
        for node in self:
            digraph.add_node(node.id, node=node)
            for place, source in enumerate(self._sources[node.id]):
                digraph.add_edge(source, node.id, key=place, type=self._nodes[source].type)
        return digraph

    def width(self, node: Node) -> int:
        """Channels of a node's first input; 0 for what reads token ids."""
        sources = self.inputs(node.id)
        last = sources[0].type.axes[-1] if sources else 0
        return last if isinstance(last, int) else 0

    def owners(self) -> Iterator[Node]:
        """Nodes that own their weights: each set of weights once."""
        return (node for node in self if node.weights == node.id)

    def parameters(self) -> int:
        """Trainable parameters, tied weights once."""
        return sum(node.op.parameters(self.width(node)) for node in self.owners())


__all__ = ["Axis", "Graph", "LayerInfo", "Node", "TensorType", "Tokens", "stream"]
