"""A plan as the files of a folder: a Python package that runs with torch alone."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import jinja2

from ..ir.graph import Graph
from ..source import Source
from ..version import VERSION
from . import package
from .expression import Call
from .folder import CONFIG, GENERATOR, SCHEMA, write_folder
from .kernels import rendered
from .naming import one_line, shown_path, unused
from .plan import Plan, make_plan
from .serve import served
from .text import FILTERS, statement_lines

ALWAYS = {"nn/mixer.py": ("Cache",), "nn/model.py": ("Model", "Output")}
IN_LAYERS = {"nn/mixer.py": ("Context",), "nn/model.py": ("Layer",)}
"""What the template itself names."""


def emit(graph: Graph, sources: Sequence[Source] = ()) -> dict[str, bytes]:
    """The files of a model by their path inside the folder.

    sources: the .mix files that the graph was built from, its own first.
    """
    plan = make_plan(graph)
    header = _header(plan, sources)
    files = {str(path): _carried(path) for path in plan.files}
    files["model.py"] = _model(plan, header)
    files.update(rendered(graph, [f"Written by mixerlang {VERSION}.", *filter(None, header[1:])]))
    files["__init__.py"] = _render("__init__.py.jinja", plan=plan, header=header[:1])
    files.update(_spec_copies(sources))
    files[CONFIG] = b""
    files[CONFIG] = _config(plan, sources, sorted(files))
    return files


def _carried(path: package.Path) -> bytes:
    text = package.source(path)
    assert text is not None, path
    return text


def _model(plan: Plan, header: list[str]) -> bytes:
    imports = {file: set(names) for file, names in plan.imports.items()}
    for extra in (ALWAYS, IN_LAYERS if plan.classes else {}):
        for file, names in extra.items():
            imports.setdefault(file, set()).update(names)
    calls = [line for layer in plan.classes for line in statement_lines(layer)]
    uses = {
        "torch": plan.head.softcap is not None or any("torch." in line for line in calls),
        "F": plan.head.tied or any("F." in line for line in calls),
    }
    return _render(
        "model.py.jinja",
        plan=plan,
        header=header,
        imports=[(file, tuple(sorted(names))) for file, names in sorted(imports.items())],
        uses=uses,
        base=_base(plan),
        embedding=plan.embedding,
        head=plan.head,
        stream=f"(B, T, {plan.embedding.dim})",
    )


def _base(plan: Plan) -> Call:
    """The call of the base class's constructor."""
    sizes = {
        "vocab": plan.embedding.vocab,
        "dim": plan.embedding.dim,
        "context": plan.graph.fields.context,
    }
    arguments = tuple((name, repr(size)) for name, size in sizes.items())
    return Call("super().__init__", (*arguments, ("init", plan.init)))


def _render(template: str, **values: Any) -> bytes:
    return _environment().get_template(template).render(**values).encode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mixerlang.codegen"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment


# ------------------------------------------------------------------------------------ the header


def _header(plan: Plan, sources: Sequence[Source]) -> list[str]:
    """What the file is, what it came from, and how to make it again."""
    graph = plan.graph
    count = f"{len(graph.layers)} layer{'s' * (len(graph.layers) != 1)}"
    lines = [
        f"{graph.name}: {count}, {graph.parameters():,} parameters. "
        f"Written by mixerlang {VERSION}."
    ]
    spec = _spec(graph, sources)
    if spec is None:
        return lines
    settings = [f"{name}={setting(value)}" for name, value in sorted(graph.params.items())]
    command = ["mixerlang", "compile", spec]
    for each in settings:
        command += ["--set", each]
    lines += ["", f"Spec:   {spec} (copied to spec/)"]
    if settings:
        lines.append(f"Params: {', '.join(settings)}")
    return [*lines, f"Again:  {shlex.join([*command, '-o', graph.name])}"]


def _spec(graph: Graph, sources: Sequence[Source]) -> str | None:
    return f"{shown_path(sources[0].path)}:{graph.name}" if sources else None


def setting(value: object) -> str:
    """The value of a param as it is written in .mix."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _config(plan: Plan, sources: Sequence[Source], files: list[str]) -> bytes:
    graph = plan.graph
    config = {
        "generator": GENERATOR,
        "schema": SCHEMA,
        "version": VERSION,
        "name": graph.name,
        "spec": _spec(graph, sources),
        "params": {name: _plain(value) for name, value in sorted(graph.params.items())},
        "vocab": graph.fields.vocab,
        "dim": graph.fields.dim,
        "context": graph.fields.context,
        "dtype": graph.fields.dtype,
        "tie_embeddings": plan.head.tied,
        "parameters": graph.parameters(),
        "layers": [
            {"label": layer.label, "class": entry.class_name, "mixers": _mixers(graph, layer.nodes)}
            for layer, entry in zip(graph.layers, plan.entries, strict=True)
        ],
        "kernels": [part.as_json() for part in served(graph)],
        "files": files,
    }
    return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()


def _mixers(graph: Graph, nodes: Iterable[str]) -> list[str]:
    return [graph[id].op.word for id in nodes if graph[id].op.kind == "mixer"]


def _plain(value: object) -> object:
    """A param's value in JSON: numbers as they are, fractions and words as text."""
    return value if isinstance(value, bool | int | float) else one_line(value)


# --------------------------------------------------------------------------------- copies of specs


def _spec_copies(sources: Sequence[Source]) -> dict[str, bytes]:
    """The .mix files under spec/, placed to one another as they were, so that imports hold."""
    paths = [posixpath.normpath(source.path.replace("\\", "/")) for source in sources]
    common = _common_folder(paths)
    copies: dict[str, bytes] = {}
    for path, source in zip(paths, sources, strict=True):
        inside = posixpath.relpath(path, common) if common is not None else path
        name = unused(f"spec/{_file_name(inside)}", copies)
        copies[name] = source.text.encode("utf-8", "replace")
    return copies


def _common_folder(paths: list[str]) -> str | None:
    if len({path.startswith("/") for path in paths}) != 1:
        return None
    return posixpath.commonpath([posixpath.dirname(path) for path in paths]) or "."


def _file_name(path: str) -> str:
    """A path of plain words below the folder, whatever stood in the original."""
    parts = [re.sub(r"[^A-Za-z0-9_.-]", "_", part) for part in path.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "spec.mix"


__all__ = ["emit", "write_folder"]
