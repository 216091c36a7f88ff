"""The streams of a process, made safe for whatever a command prints."""

from __future__ import annotations

import codecs
import io
import os
import sys

_DRAWN = {"│": "|", "├": "|", "└": "`", "─": "-", "·": "-", "×": "x", "…": "...", "█": "#"}
"""What views draw with, for terminals that know no more than ASCII."""


def prepare() -> None:
    """Have stdout and stderr take every character, even where they are closed or not Unicode."""
    _open_closed()
    codecs.register_error("mixerlang.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mixerlang.plain")


def _open_closed() -> None:
    """A stream that the caller closed leads nowhere; a file opened later would take its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def drop_stdout() -> None:
    """Give up what stdout could not take: Python would try it again at exit, and fail with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_DRAWN.get(char) or ascii(char)[1:-1] for char in text), error.end
