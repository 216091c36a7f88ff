"""mixerlang analyze."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import Dtype, Json, Root, Set, Spec


class Backend(StrEnum):
    EAGER = "eager"
    KERNELS = "kernels"


def analyze(
    spec: Spec,
    batch: Annotated[int, typer.Option(min=1, max=2**40, help="Sequences.")] = 1,
    length: Annotated[
        int | None,
        typer.Option(min=1, max=2**40, show_default=False,
                     help="Tokens per sequence; by default the model's context."),
    ] = None,
    dtype: Dtype = None,
    backend: Annotated[
        Backend, typer.Option(help="Whose cache: of plain PyTorch, or of the kernels on a GPU.")
    ] = Backend.EAGER,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Count parameters, forward FLOPs and bytes of the decoding cache."""
    from .. import analysis
    from .output import print_data
    from .specs import graph_of

    found = analysis.analyze(graph_of(spec, set, root), batch, length, dtype, backend)
    if json:
        print_data(found.as_json())
    else:
        print(analysis.table(found))
