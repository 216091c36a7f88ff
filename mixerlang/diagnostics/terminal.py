"""Text of unknown origin on a terminal: nothing that moves a cursor, and widths in cells."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

_STYLES = {"error": "1;31", "warning": "1;33", "note": "1;36", "help": "1;32", "strong": "1",
           "frame": "34"}


def clean(text: str) -> str:
    """The text with every character that a terminal would obey, or not show, made visible.

    A spec may hold escape sequences, or marks that reorder what one reads (Trojan Source).
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)  # control pictures: ␛ for escape
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    if unicodedata.category(char) == "Zs":
        return " "
    return "\N{REPLACEMENT CHARACTER}"


def cells(char: str) -> int:
    """Columns that a printable character takes on a terminal."""
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def width(text: str) -> int:
    """Columns that a printable text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(cells, text))


def paint(text: str, style: str, color: bool) -> str:
    """The text in one of the styles of diagnostics, where there are colours."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color else text


def wants_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal, unless its user says otherwise (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
