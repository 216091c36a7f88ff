"""mixerlang graph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Root, Set, Spec


class View(StrEnum):
    TREE = "tree"
    MERMAID = "mermaid"
    SVG = "svg"


def graph(
    spec: Spec,
    view: Annotated[View, typer.Option("--as", help="What to draw.")] = View.TREE,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there.", show_default=False),
    ] = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Show a model's layers and what they compute."""
    from ..ir import views
    from .output import emit
    from .specs import graph_of

    found = graph_of(spec, set, root)
    if json:
        from json import dumps

        emit(dumps(views.as_json(found), indent=2), output)
        return
    draw = {View.TREE: views.tree, View.MERMAID: views.mermaid, View.SVG: views.svg}
    emit(draw[view](found), output)
