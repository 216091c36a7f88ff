"""Arguments and options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from .guard import JSON


class DtypeName(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def _remember(ctx: typer.Context, value: bool) -> bool:
    """Errors are told as JSON too."""
    ctx.meta[JSON] = value
    return value


def _setting(text: str) -> str:
    name, equals, value = text.partition("=")
    if not (equals and name.strip().isidentifier() and value.strip()):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    return text


def settings(given: list[str] | None) -> dict[str, str]:
    """The values of --set by name; of two for one name the last."""
    pairs = (text.partition("=") for text in given or [])
    return {name.strip(): value.strip() for name, _, value in pairs}


Value = TypeVar("Value")


def asked(read: Callable[[], Value], option: str) -> Value:
    """What the value of an option means; one that means nothing is a usage error."""
    try:
        return read()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A .mix file, or file.mix:model.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", parser=_setting, show_default=False,
        help="Give a param of the model a value. Repeatable.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", show_default=False,
                 help="The folder that imports stay in; by default that of the file."),
]
Json = Annotated[
    bool, typer.Option("--json", callback=_remember, help="Answer in JSON, errors too.")
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", show_default=False, help="cpu, cuda, cuda:1; by default cuda "
                 "where there is one."),
]
Dtype = Annotated[
    DtypeName | None,
    typer.Option(show_default=False, help="Of weights and cache; by default the model's."),
]
