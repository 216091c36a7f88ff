"""What commands print: results on stdout, diagnostics of everything but `check` on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EACCES
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from ..diagnostics.machine import as_json
from ..diagnostics.record import Diagnostic
from ..diagnostics.render import Format, render
from ..diagnostics.terminal import clean, paint, wants_color


def print_data(value: object) -> None:
    """A result as JSON."""
    print(json.dumps(value, indent=2))


def print_json(items: Iterable[Diagnostic]) -> None:
    """Diagnostics in place of a result."""
    print_data([as_json(item) for item in items])


def report(
    items: Iterable[Diagnostic], format: Format = Format.FULL, stream: TextIO | None = None
) -> None:
    """Print diagnostics, if there are any."""
    stream = sys.stderr if stream is None else stream
    text = render(items, format, wants_color(stream))
    if text:
        print(text, file=stream)


def print_failure(message: str, help: str | None, as_data: bool) -> None:
    """An error that is not in a spec: a diagnostic without a code."""
    if as_data:
        nowhere = dict.fromkeys(("path", "line", "column", "end_line", "end_column"))
        print_data([{"code": None, "severity": "error", "message": message, **nowhere,
                     "help": help}])
        return
    color = wants_color(sys.stderr)
    print(f"{paint('error', 'error', color)}: {clean(message)}", file=sys.stderr)
    if help is not None:
        print(f"  {paint('help', 'help', color)}: {clean(help)}", file=sys.stderr)


def note(message: str) -> None:
    """Something a user should know, beside the result."""
    print(f"{paint('note', 'note', wants_color(sys.stderr))}: {clean(message)}", file=sys.stderr)


def safe(text: str, stream: TextIO) -> str:
    """Text that holds what somebody else wrote: as it is for a file, cleaned for a terminal."""
    if not stream.isatty():
        return text
    return "\n".join(clean(line.expandtabs(4)) for line in text.split("\n"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An error inside, which may be of a temporary file or of none, is told of `path`."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; a link keeps pointing to it, its mode stays.

    What is no file of a disk, a pipe or a device, is written to: it cannot be replaced.
    """
    if path.exists() and not path.is_file():
        with writing(path):
            path.write_bytes(text.encode("utf-8"))
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with writing(path):
            if target.exists() and not os.access(target, os.W_OK):
                raise PermissionError(EACCES, os.strerror(EACCES))
            temporary.write_bytes(text.encode("utf-8"))
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def emit(text: str, output: Path | None) -> None:
    """Print a result, or write it to the file asked for."""
    if output is None:
        print(safe(text, sys.stdout), end="" if text.endswith("\n") else "\n")
    else:
        write_whole(output, text if text.endswith("\n") else text + "\n")
