"""Reading files: bounded, UTF-8, inside the project."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from ..diagnostics import Diagnostics
from ..source import Source, Span
from ..syntax import ast, parse
from .report import PRELUDE

FILE_LIMIT = 128 * 1024
TOTAL_LIMIT = 512 * 1024


def read_source(
    path: str, diagnostics: Diagnostics, span: Span | None = None, real: Path | None = None
) -> Source | None:
    """The text of a file, or None with what is wrong reported at `span`.

    path: for display; real: what is opened, where that differs.
    """
    file = real or Path(path)
    try:
        if not file.is_file():
            what = "is a directory" if file.is_dir() else "is no file"
            what = what if file.exists() else "does not exist"
            diagnostics.add("MX001", span, f"`{printable(path)}` {what}")
            return None
        with file.open("rb") as stream:
            data = stream.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        diagnostics.add("MX001", span, f"`{printable(path)}` cannot be read: {reason}")
        return None
    return decode(path, data, diagnostics, span)


def decode(
    path: str, data: bytes, diagnostics: Diagnostics, span: Span | None = None
) -> Source | None:
    """The text of a file from its bytes, or None with what is wrong reported at `span`."""
    if len(data) > FILE_LIMIT:
        diagnostics.add("MX003", span, f"`{printable(path)}` is larger than 128 KiB",
                        help="a spec is one screen of text; split it into imported files")
        return None
    try:
        return Source(printable(path), data.decode("utf-8"))
    except UnicodeDecodeError as error:
        diagnostics.add("MX002", span, f"`{printable(path)}` is not UTF-8 at byte {error.start}",
                        help="save the file as UTF-8")
        return None


def printable(path: str) -> str:
    """A path that stays on its line, whatever bytes it holds."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in path)


def resolve_import(
    path: ast.String, importer: Path, root: Path, diagnostics: Diagnostics
) -> Path | None:
    """The file that an import names, inside the root once links are followed."""
    if "\0" in path.value or not path.value:
        diagnostics.add("MX001", path.span, "an import names a file")
        return None
    target = Path(os.path.realpath(importer.parent / path.value))
    if os.path.isabs(path.value) or not target.is_relative_to(root):
        diagnostics.add("MX004", path.span, "an import leaves the project",
                        help="paths are relative to the importing file, and stay inside the folder "
                        "of the file given, or --root")
        return None
    return target


@cache
def prelude() -> tuple[ast.File, ...]:
    """The provided .mix files, parsed once per process."""
    return tuple(_parsed(source) for source in prelude_sources())


def prelude_sources() -> Iterator[Source]:
    """The provided .mix files in order of their names."""
    folder = resources.files("mixerlang") / "prelude"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".mix"):
            yield Source(PRELUDE + entry.name, entry.read_text(encoding="utf-8"))


def _parsed(source: Source) -> ast.File:
    file, diagnostics = parse(source)
    assert not diagnostics.errors, [d.message for d in diagnostics]
    return file
