"""mixerlang analyze."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import Dtype, Json, Root, Set, Spec


class Backend(StrEnum):
    EAGER = "eager"
    KERNELS = "kernels"


class CountName(StrEnum):
    USEFUL = "useful"
    EXECUTED = "executed"
    DENSE = "dense"


Batch = Annotated[int, typer.Option(min=1, max=2**40, help="Sequences.")]
Counted = Annotated[
    CountName,
    typer.Option("--count", help="FLOPs of the rows: masked pairs left out, as kernels execute, or "
                 "as plain PyTorch runs."),
]
WhoseCache = Annotated[
    Backend, typer.Option(help="Whose cache: of plain PyTorch, or of the kernels on a GPU.")
]


def analyze(
    spec: Spec,
    batch: Batch = 1,
    length: Annotated[
        int | None,
        typer.Option(min=1, max=2**40, show_default=False,
                     help="Tokens per sequence; by default the model's context."),
    ] = None,
    dtype: Dtype = None,
    backend: WhoseCache = Backend.EAGER,
    count: Counted = CountName.DENSE,
    formulas: Annotated[
        bool, typer.Option("--formulas", help="Print expressions in B, T and L, by range, instead.")
    ] = False,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Count parameters, FLOPs and bytes, in numbers and as expressions."""
    from .. import analysis
    from .output import print_data
    from .specs import graph_of

    found = analysis.analyze(graph_of(spec, set, root), batch, length, dtype, backend)
    if json:
        print_data(analysis.as_json(found))
    elif formulas:
        print(analysis.formula_lines(found, count))
    else:
        print(analysis.table(found, count))
