"""From a spec on the command line to its graph."""

from __future__ import annotations

from pathlib import Path

from ..errors import SpecError
from ..ir.graph import Graph
from ..pipeline import build_graph
from .options import settings
from .output import report


def graph_of(spec: str, given: list[str] | None, root: Path | None) -> Graph:
    """The graph of the model; warnings go to stderr, errors are raised."""
    graph, diagnostics = build_graph(spec, settings(given), root)
    if graph is None:
        raise SpecError(diagnostics)
    report(diagnostics)
    return graph
