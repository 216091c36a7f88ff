"""Exceptions of the public API. Inside, stages return results with diagnostics."""

from __future__ import annotations

from .diagnostics import Diagnostic, Diagnostics


class MixerlangError(Exception):
    """Whatever mixerlang raises on purpose.

    MixerlangError
      SpecError        a spec has errors; `diagnostics` holds them
      FolderError      a folder is no output of mixerlang
    """


class SpecError(MixerlangError):
    """A spec has errors."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self.diagnostics = diagnostics.sorted()
        super().__init__("\n".join(["the spec has errors", *map(_line, self.diagnostics)]))


class FolderError(MixerlangError):
    """A folder is no output of mixerlang."""


def _line(item: Diagnostic) -> str:
    place = "" if item.span is None else f"{item.span}: "
    help = "" if item.help is None else f" ({item.help})"
    return f"  {place}{item.severity} {item.code}: {item.message}{help}"
