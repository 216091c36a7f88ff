"""From a spec to the files of its model: what `mixerlang compile` writes and `load` runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..diagnostics import Diagnostics
from ..ir.graph import Graph
from ..pipeline import graph_of
from ..semantics import open_project, split_spec
from .emit import emit
from .serve import report_limits


@dataclass(frozen=True)
class Compiled:
    """A model's graph and its files by their path inside the folder."""

    graph: Graph
    files: dict[str, bytes]


def compile_spec(
    spec: str | os.PathLike[str],
    params: Mapping[str, Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> tuple[Compiled | None, Diagnostics]:
    """The files of "file.mix" or "file.mix:model", and what is wrong with it.

    params and root are those of `pipeline.build_graph`. Nothing is written.
    """
    path, name = split_spec(spec)
    project = open_project(path, root)
    model = None if project.module is None else project.choose(name)
    graph = None if model is None else graph_of(project, model.name.id, params)
    if graph is None or project.diagnostics.errors:
        return None, project.diagnostics
    report_limits(graph, project.diagnostics)
    return Compiled(graph, emit(graph, project.sources)), project.diagnostics
