"""mixerlang compile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DtypeName, Json, Root, Set, Spec, settings


def compile_(
    spec: Spec,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.",
                           show_default=False)
    ],
    autotune: Annotated[
        bool,
        typer.Option("--autotune", help="First search for faster tiles on this machine's GPU; they "
                     "are kept for later compiles."),
    ] = False,
    dtype: Annotated[
        DtypeName | None,
        typer.Option(show_default=False, help="Of the calls that --autotune searches tiles for; by "
                     "default the model's."),
    ] = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Write a model as a folder of PyTorch that runs without mixerlang."""
    from ..codegen.compile import compile_spec
    from ..codegen.folder import write_folder
    from ..codegen.serve import served
    from ..diagnostics.terminal import clean
    from ..errors import SpecError
    from .kernels import what_runs
    from .output import print_data, report, writing
    from .tuning import search

    compiled, diagnostics = compile_spec(spec, settings(set), root)
    if compiled is None:
        raise SpecError(diagnostics)
    report(diagnostics)
    if autotune:
        search(compiled.graph, dtype)
        compiled, _ = compile_spec(spec, settings(set), root)
        assert compiled is not None
    with writing(output):
        refused = write_folder(compiled.files, output)
    if refused.errors:
        raise SpecError(refused)
    graph = compiled.graph
    parts = served(graph)
    if json:
        print_data({"model": graph.name, "directory": str(output),
                    "parameters": graph.parameters(), "files": sorted(compiled.files),
                    "kernels": [part.as_json() for part in parts]})
    else:
        print(clean(f"{output}: {graph.name}, {graph.parameters():,} parameters, "
                    f"{len(compiled.files)} files; start with {output / 'model.py'}"))
        if parts:
            print("\n" + what_runs(parts))
