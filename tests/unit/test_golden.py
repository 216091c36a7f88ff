"""The graph of the paper's laLTE: nodes, edges with their shapes, lines of the spec.

`MIXERLANG_GOLDEN=write pytest tests/unit/test_golden.py` writes the text anew; read its diff.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mixerlang.ir.graph import Graph, Node
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "specs/paper/lalte_400m.mix"
GOLDEN = ROOT / "tests/golden/lalte_400m.txt"


def render(graph: Graph) -> str:
    return "\n".join(lines(graph)) + "\n"


def lines(graph: Graph) -> Iterator[str]:
    yield f"{graph.name}: {graph.parameters()} parameters, params {graph.params}"
    layer = None
    for node in graph:
        if node.layer is not None and node.layer != layer:
            info = graph.layers[node.layer]
            line = info.span.begin[0] if info.span else "-"
            yield f"layer {info.index} {info.label}, line {line}: {info.input} -> {info.output}"
        layer = node.layer
        yield f"  {one_line(graph, node)}"


def one_line(graph: Graph, node: Node) -> str:
    """`norm1 RMSNorm(embedding: B T 1024) -> B T 1024, 1024 parameters, blocks.mix:3`."""
    inputs = ", ".join(f"{source.id}: {source.type}" for source in graph.inputs(node.id))
    place = "-"
    if node.span is not None:
        place = f"{Path(node.span.source.path).name}:{node.span.begin[0]}"
    owned = node.op.parameters(graph.width(node)) if node.weights == node.id else 0
    cost = f", {owned} parameters" if owned else ""
    return f"{node.name} {type(node.op).__name__}({inputs}) -> {node.type}{cost}, {place}"


def test_graph_of_the_paper() -> None:
    graph, diagnostics = build_graph(SPEC)
    assert graph is not None and not len(diagnostics)
    text = render(graph)
    if os.environ.get("MIXERLANG_GOLDEN") == "write":
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")
