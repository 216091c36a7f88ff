"""mixerlang compile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Root, Set, Spec, settings


def compile_(
    spec: Spec,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.",
                           show_default=False)
    ],
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Write a model as a folder of PyTorch that runs without mixerlang."""
    from ..codegen.compile import compile_spec
    from ..codegen.folder import write_folder
    from ..diagnostics.terminal import clean
    from ..errors import SpecError
    from .output import print_data, report, writing

    compiled, diagnostics = compile_spec(spec, settings(set), root)
    if compiled is None:
        raise SpecError(diagnostics)
    report(diagnostics)
    with writing(output):
        refused = write_folder(compiled.files, output)
    if refused.errors:
        raise SpecError(refused)
    graph = compiled.graph
    if json:
        print_data({"model": graph.name, "directory": str(output),
                    "parameters": graph.parameters(), "files": sorted(compiled.files)})
    else:
        print(clean(f"{output}: {graph.name}, {graph.parameters():,} parameters, "
                    f"{len(compiled.files)} files; start with {output / 'model.py'}"))
