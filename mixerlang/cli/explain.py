"""mixerlang explain."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Json


def explain(
    code: Annotated[
        str | None,
        typer.Argument(metavar="CODE", show_default=False,
                       help="Of a diagnostic, as MX203; without one all are listed."),
    ] = None,
    json: Json = False,
) -> None:
    """Tell what a diagnostic means, by an example, and the way out."""
    from ..diagnostics.codes import CODES
    from .output import print_data

    if code is None:
        if json:
            print_data([{"code": name, **about._asdict()} for name, about in CODES.items()])
        else:
            print("\n".join(f"{name}  {about.title}" for name, about in CODES.items()))
        return
    name = code.strip().upper()
    if name not in CODES:
        raise typer.BadParameter(
            f"{code!r} is no code; `mixerlang explain` lists all codes", param_hint="CODE"
        )
    text = page(name)
    if json:
        print_data({"code": name, **CODES[name]._asdict(), "page": text})
    else:
        show(text)


def page(code: str) -> str:
    """The page of a code, in Markdown."""
    from importlib.resources import files

    return files("mixerlang").joinpath("diagnostics", "pages", f"{code}.md").read_text("utf-8")


def show(text: str) -> None:
    """Rendered on a terminal, as it is elsewhere."""
    import sys

    if not sys.stdout.isatty():
        print(text.rstrip("\n"))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(text), width=min(console.width, 100))
