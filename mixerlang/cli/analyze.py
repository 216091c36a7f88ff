"""mixerlang analyze."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Dtype, Json, Root, Set, Spec, asked, settings

if TYPE_CHECKING:
    from ..analysis import Analysis
    from ..ir.graph import Graph


class Backend(StrEnum):
    EAGER = "eager"
    KERNELS = "kernels"


class CountName(StrEnum):
    USEFUL = "useful"
    EXECUTED = "executed"
    DENSE = "dense"


class Optimizer(StrEnum):
    ADAMW = "adamw"
    LION = "lion"
    SGD = "sgd"


class Style(StrEnum):
    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"


Batch = Annotated[int, typer.Option(min=1, max=2**40, help="Sequences.")]
Counted = Annotated[
    CountName,
    typer.Option("--count", help="FLOPs of the rows: masked pairs left out, as kernels execute, or "
                 "as plain PyTorch runs."),
]
WhoseCache = Annotated[
    Backend, typer.Option(help="Whose cache: of plain PyTorch, or of the kernels on a GPU.")
]

As = Annotated[Style, typer.Option("--as", help="For a terminal, or for a document.")]


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
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME", show_default=False,
                     help="Estimate times on it instead: a100, b200, h100, h200, l40s, mi300x or "
                     "rtx4090."),
    ] = None,
    fits: Annotated[
        str | None,
        typer.Option("--fits", metavar="BYTES", show_default=False,
                     help="Tell the longest context whose cache and weights fit: 80GiB, 24GB."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", min=1, max=2**20, show_default=False,
                     help="Tell the memory of training on so many under FSDP2 instead."),
    ] = None,
    optimizer: Annotated[
        Optimizer, typer.Option(help="Of --gpus: what it keeps per parameter.")
    ] = Optimizer.ADAMW,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Of --gpus: weights, gradients and moments in float32.")
    ] = False,
    checkpointed: Annotated[
        bool, typer.Option("--checkpointed", help="Of --gpus: layers run again in the backward.")
    ] = False,
    style: As = Style.TABLE,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", show_default=False,
                     help="Write a page with plots, of an h100 or the --gpu."),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option("--symbol", metavar="NAME", show_default=False,
                     help="Keep a param of the model as a symbol in --formulas. Repeatable."),
    ] = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Count parameters, FLOPs and bytes, in numbers and as expressions."""
    from .. import analysis
    from .output import print_data, write_whole
    from .specs import graph_of

    found = analysis.analyze(graph_of(spec, set, root), batch, length, dtype, backend)
    latency = None if gpu is None else asked(lambda: analysis.latency_on(found, gpu), "--gpu")
    plan = None if gpus is None else analysis.Plan(gpus, optimizer, mixed, checkpointed)
    most = None if fits is None else asked(lambda: analysis.size_of(fits), "--fits")
    if html is not None:
        times = latency or analysis.latency_on(found, "h100")
        write_whole(html, analysis.page(found, times, count))
    if json:
        print_data(analysis.as_json(found, latency, most, plan))
    elif html is not None:
        print(html)
    elif plan is not None:
        print(analysis.sharding_lines(found, plan))
    elif latency is not None:
        print(analysis.time_lines(latency))
    elif most is not None:
        print(analysis.fitting_line(found, most))
    elif formulas or symbol:
        print(analysis.formula_lines(_symbolic(found, symbol, spec, set, root), count))
    elif style is Style.TABLE:
        print(analysis.table(found, count))
    else:
        print(analysis.markup(found, count, style))


def _symbolic(
    found: Analysis, names: list[str] | None, spec: str, given: list[str] | None, root: Path | None
) -> Analysis:
    """The analysis, with expressions in some params too."""
    from ..analysis.symbols import with_symbols
    from ..pipeline import build_graph

    if not names:
        return found

    def build(values: dict[str, int]) -> Graph | None:
        return build_graph(spec, {**settings(given), **values}, root)[0]

    if found.backend != Backend.EAGER:
        raise typer.BadParameter("params are symbols in what plain PyTorch does alone",
                                 param_hint="--symbol")
    graph = asked(lambda: with_symbols(found.graph, names, build), "--symbol")
    return replace(found, symbolic=graph)
