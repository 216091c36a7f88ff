"""Diagnostics for programs: JSON objects, and annotations of GitHub's checks."""

from __future__ import annotations

from typing import Any

from .record import Diagnostic
from .terminal import clean


def as_json(item: Diagnostic) -> dict[str, Any]:
    """Lines and columns count code points from 1, the end exclusive; null without a place."""
    (line, column), (end_line, end_column) = (None, None), (None, None)
    if item.span is not None:
        (line, column), (end_line, end_column) = item.span.begin, item.span.finish
    return {
        "code": item.code,
        "severity": item.severity.value,
        "message": item.message,
        "path": None if item.span is None else item.span.source.path,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "help": item.help,
    }


def github(item: Diagnostic) -> str:
    """A workflow command: `::error file=a.mix,line=1,col=2,endColumn=5,title=MX201::message`."""
    properties: dict[str, object] = {}
    if item.span is not None:
        (line, column), (end_line, end_column) = item.span.begin, item.span.finish
        properties = {"file": clean(item.span.source.path), "line": line, "endLine": end_line}
        if line == end_line:  # columns of a span over several lines are not understood
            properties |= {"col": column, "endColumn": end_column}
    properties["title"] = item.code
    listed = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    message = clean(item.message)
    if item.help is not None:
        message += f"\nhelp: {clean(item.help)}"
    return f"::{item.severity} {listed}::{_data(message)}"


def _data(text: str) -> str:
    """Escaped as the toolkit of GitHub's actions does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
