"""From a spec to its verified graph, in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .diagnostics import Diagnostics
from .ir.build import build
from .ir.graph import Graph
from .ir.verify import verify
from .semantics import Project, open_project, split_spec


def build_graph(
    spec: str | os.PathLike[str],
    params: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> tuple[Graph | None, Diagnostics]:
    """The verified graph of "file.mix" or "file.mix:model", and what is wrong with it.

    params: values for the params of the model. root: the folder that imports stay in, by default
    the file's own. The graph is None where there is an error.
    """
    path, name = split_spec(spec)
    project = open_project(path, root)
    model = project.choose(name) if project.module is not None else None
    graph = None if model is None else graph_of(project, model.name.id, params)
    return graph, project.diagnostics


def graph_of(
    project: Project, name: str, params: Mapping[str, Any] | None = None
) -> Graph | None:
    """The graph of one model of a project; None where there is an error."""
    resolved = project.resolve(project.models[name], params)
    if resolved is None:
        return None
    graph = build(resolved, project.diagnostics)
    if project.diagnostics.errors:
        return None
    verify(graph)
    return graph


def check(
    spec: str | os.PathLike[str],
    params: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, Graph], Diagnostics]:
    """The graphs of all models of a file, or of the one named, and what is wrong anywhere; no
    graphs where there is an error.

    Params are those of one model, so a file with several needs its name then.
    """
    path, name = split_spec(spec)
    project = open_project(path, root)
    names = list(project.models)
    if name is not None or params:
        chosen = project.choose(name)
        names = [] if chosen is None else [chosen.name.id]
    graphs = {name: graph_of(project, name, params) for name in names}
    if project.diagnostics.errors:
        return {}, project.diagnostics
    return {name: graph for name, graph in graphs.items() if graph is not None}, project.diagnostics
