"""mixerlang check."""

from __future__ import annotations

from typing import Annotated

import typer

from ..diagnostics.render import Format
from .options import Json, Root, Set, settings

Specs = Annotated[
    list[str],
    typer.Argument(metavar="SPEC", help="Files, or file.mix:model.", show_default=False),
]


def check(
    specs: Specs,
    format: Annotated[Format, typer.Option("--format", help="How to show them.")] = Format.FULL,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Say what is wrong with specs: syntax, names, types, values, shapes."""
    import sys

    from ..pipeline import check
    from .output import report

    models, found = 0, {}
    for spec in specs:
        graphs, diagnostics = check(spec, settings(set), root)
        models += len(graphs)
        found.update(dict.fromkeys(diagnostics))  # two specs may import one faulty file
    format = Format.JSON if json else format
    report(found, format, sys.stdout)
    if not found and format is Format.FULL:
        print(f"{models} model{'s' * (models != 1)} in {len(specs)} file"
              f"{'s' * (len(specs) != 1)}: nothing to report")
    if any(item.severity == "error" for item in found):
        raise typer.Exit(1)
