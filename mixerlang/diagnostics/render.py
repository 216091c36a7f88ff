"""One record, four renderers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum

from .machine import as_json, github
from .record import Diagnostic
from .text import concise, full, summary


class Format(StrEnum):
    """How diagnostics are shown."""

    FULL = "full"
    CONCISE = "concise"
    JSON = "json"
    GITHUB = "github"


def render(items: Iterable[Diagnostic], format: Format, color: bool = False) -> str:
    """All diagnostics as one text, without a newline at its end; "" where there is none.

    JSON is a list of objects, `[]` where there is none.
    """
    found = list(items)
    match format:
        case Format.JSON:
            return json.dumps([as_json(item) for item in found], indent=2)
        case Format.GITHUB:
            return "\n".join(map(github, found))
        case Format.CONCISE:
            return "\n".join(concise(item, color) for item in found)
        case Format.FULL:
            texts = [full(item, color) for item in found]
            return "\n\n".join([*texts, summary(found)] if found else [])
