"""mixerlang fmt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from ..diagnostics import Diagnostics
    from ..source import Source

STDIN = "-"

Paths = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="Files, or - for stdin.", show_default=False),
]


def fmt(
    paths: Paths,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if a file would change.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="As --check, and show what would change.")
    ] = False,
    json: Json = False,
) -> None:
    """Lay out specs in the one style. Comments and meaning stay."""
    from ..diagnostics import Diagnostics
    from ..syntax import format_source
    from .output import print_data, print_json, report

    diagnostics, changed = Diagnostics(), []
    for path in paths:
        source = read_source(path, diagnostics)
        text, problems = (None, None) if source is None else format_source(source)
        if problems is not None:
            diagnostics.extend(problems)
        if source is None or text is None:
            continue
        if text != source.text:
            changed.append(path)
        put(path, source, text, check=check, diff=diff, json=json)
    if json and diagnostics.errors:
        print_json(diagnostics)
    elif json:
        print_data({"changed": changed, "unchanged": [p for p in paths if p not in changed]})
    else:
        report(diagnostics)
    if diagnostics.errors or ((check or diff) and changed):
        raise typer.Exit(1)


def read_source(path: str, diagnostics: Diagnostics) -> Source | None:
    """The text of a file or of stdin; what is wrong with it goes to `diagnostics`."""
    from ..semantics.files import FILE_LIMIT, decode, read_source

    if path != STDIN:
        return read_source(path, diagnostics)
    return decode("<stdin>", sys.stdin.buffer.read(FILE_LIMIT + 1), diagnostics)


def put(path: str, source: Source, text: str, *, check: bool, diff: bool, json: bool) -> None:
    """The formatted text where it belongs, or what would change."""
    from .output import write_whole

    if diff and not json:
        sys.stdout.writelines(differences(source.path, source.text, text))
    elif check or diff:
        if not json and text != source.text:
            print(f"{source.path} would change")
    elif path == STDIN:
        if not json:
            sys.stdout.write(text)
    elif text != source.text:
        write_whole(Path(path), text)
        if not json:
            print(f"{source.path} changed")


def differences(path: str, before: str, after: str) -> Iterator[str]:
    """A unified diff, safe to show."""
    from difflib import unified_diff

    from ..diagnostics.terminal import clean

    # StringIO ends lines at "\n" alone, so that one sees what else ends them.
    for line in unified_diff(list(StringIO(before)), list(StringIO(after)), path, path):
        yield clean(line.removesuffix("\n").replace("\t", "    ")) + "\n"
        if not line.endswith("\n"):
            yield "\\ No newline at end of file\n"
