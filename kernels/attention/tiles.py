"""Which tile runs a variant, from the table measured beside this file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from .variant import Tile, Variant


@cache
def table() -> dict[str, Any]:
    """tiles.json: {"source": ..., "tiles": {architecture: {pass: [row, ...]}}}."""
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "tiles.json").read_text())
    return loaded


def choose(name: str, variant: Variant, architecture: str, size: int) -> Tile:
    """The first row of the table whose bounds hold the variant; size: bytes per element."""
    for row in table()["tiles"][architecture][name]:
        if fits(row, variant, size):
            return Tile(*row["tile"])
    raise LookupError(f"no {architecture} tile of {name} holds {variant}")


def fits(row: dict[str, Any], variant: Variant, size: int) -> bool:
    """Rows bound bytes per element, the larger head dim and the window; full is the widest.

    Rows may be for interval lists alone, under a budget ("capped") or without ("kept"), and for
    packed sequences, heads that share keys, or rules beside window and lists, alone or not at all.
    """
    dim = max(variant.head_dim, variant.value_dim)
    window = row.get("window")
    lists = None if not variant.intervals else "capped" if variant.budget else "kept"
    return bool(
        row["bytes"] == size
        and row.get("intervals", lists) == lists
        and row.get("packed", variant.packed) == variant.packed
        and row.get("grouped", variant.group > 1) == (variant.group > 1)
        and row.get("ruled", variant.ruled) == variant.ruled
        and dim <= row["dim"]
        and (window is None or (variant.window is not None and variant.window <= window))
    )
