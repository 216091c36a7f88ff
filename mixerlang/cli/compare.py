"""mixerlang compare and mixerlang sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .analyze import As, Backend, Batch, Style, WhoseCache
from .options import Dtype, Json, Root, Set, Spec, asked, settings

if TYPE_CHECKING:
    from ..analysis.compare import Entry

Lengths = Annotated[
    str,
    typer.Option(
        "--length", metavar="LENGTHS", help="Tokens: 4k, or 1k,64k, or 4k..1M, which doubles."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="KEY",
        show_default=False,
        help="A key of `analyze --json`, as flops.step.dense. Repeatable; by default "
        "flops.forward.useful, flops.step.useful and cache_bytes.",
    ),
]
MOST = 100
"""Specs of one comparison."""


def compare(
    specs: Annotated[
        list[str],
        typer.Argument(metavar="SPEC...", help="Files, or file.mix:model.", show_default=False),
    ],
    length: Lengths = "1k..1M",
    metric: Metrics = None,
    batch: Batch = 1,
    dtype: Dtype = None,
    backend: WhoseCache = Backend.EAGER,
    style: As = Style.TABLE,
    json: Json = False,
    root: Root = None,
) -> None:
    """Lay models side by side over lengths, and tell where they change places."""
    from ..analysis import analyze
    from ..analysis.compare import Entry
    from .specs import graph_of

    if len(specs) > MOST:
        raise typer.BadParameter(f"{len(specs)} specs: at most {MOST}", param_hint="SPEC...")
    graphs = [graph_of(spec, None, root) for spec in specs]
    names = [graph.name for graph in graphs]
    entries = [
        Entry(
            spec if names.count(graph.name) > 1 else graph.name,
            analyze(graph, batch, None, dtype, backend),
        )
        for spec, graph in zip(specs, graphs, strict=True)
    ]
    _answer(entries, length, metric, style, json)


def sweep(
    spec: Spec,
    set: Set = None,
    length: Lengths = "4k..1M",
    metric: Metrics = None,
    batch: Batch = 1,
    dtype: Dtype = None,
    backend: WhoseCache = Backend.EAGER,
    style: As = Style.TABLE,
    json: Json = False,
    root: Root = None,
) -> None:
    """Lay settings of a model side by side: --set NAME=128,256,512, and every combination."""
    from ..analysis import analyze
    from ..analysis.compare import Entry
    from ..analysis.sweep import settings as combinations
    from .specs import graph_of

    given = settings(set)
    entries = []
    for chosen in asked(lambda: list(combinations(given)), "--set"):
        pairs = [f"{name}={value}" for name, value in chosen.items()]
        graph = graph_of(spec, pairs, root)
        title = ", ".join(pairs) or graph.name
        entries.append(Entry(title, analyze(graph, batch, None, dtype, backend)))
    _answer(entries, length, metric, style, json)


def _answer(
    entries: list[Entry], length: str, keys: list[str] | None, style: Style, json: bool
) -> None:
    from ..analysis.compare import COMPARED, Comparison, metrics
    from ..analysis.lengths import lengths
    from ..diagnostics.suggest import did_you_mean
    from .output import print_data

    for key in keys or ():
        if key not in metrics():
            help = did_you_mean(key, metrics()) or f"one of {', '.join(metrics())}"
            raise typer.BadParameter(f"there is no metric {key!r}; {help}", param_hint="--metric")
    found = asked(lambda: lengths(length), "--length")
    comparison = Comparison(entries, found, keys or COMPARED)
    if json:
        print_data(comparison.as_json())
    elif style is Style.TABLE:
        print(comparison.table())
    else:
        print(comparison.markup(style))
