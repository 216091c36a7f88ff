"""The commands by name, and what they have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    analyze,
    check,
    compare,
    compile,
    explain,
    fmt,
    graph,
    kernels,
    names,
    run,
    search,
    train,
    validate,
)
from .guard import Commands


def version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from ..version import VERSION

        print(f"mixerlang {VERSION}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def mixerlang(
    version: Annotated[
        bool,
        typer.Option("--version", callback=version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A small language and a compiler for hybrid sequence models."""


app.command("check")(check.check)
app.command("fmt")(fmt.fmt)
app.command("list")(names.list_names)
app.command("show")(names.show)
app.command("graph")(graph.graph)
app.command("analyze")(analyze.analyze)
app.command("compare")(compare.compare)
app.command("sweep")(compare.sweep)
app.command("search")(search.search)
app.command("validate")(validate.validate)
app.command("compile")(compile.compile_)
app.command("kernels")(kernels.kernels)
app.command("train")(train.train)
app.command("run")(run.run)
app.command("explain")(explain.explain)
