"""How filling a state is cut into programs, and what its kernels are specialised on."""

from __future__ import annotations

from .cut import Constant, padded
from .layout import Layout

ELEMENTS = 4096
"""Of k that a program copies."""

BLOCK = 1024
"""Tokens that a program looks at a time, for its slots."""

WARPS = 4


def list_constants(layout: Layout, kv_heads: int) -> dict[str, Constant]:
    return {
        "KV_HEADS": kv_heads,
        "WINDOW": layout.window or 0,
        "SINKS": layout.sinks,
        "SLOTS": layout.slots,
        "PADDED_SLOTS": padded(layout.slots),
        "BLOCK": BLOCK,
    }


def fill_constants(layout: Layout, kv_heads: int, dim: int, value_dim: int) -> dict[str, Constant]:
    return {
        "KV_HEADS": kv_heads,
        "DIM": dim,
        "PADDED_DIM": padded(dim),
        "VALUE_DIM": value_dim,
        "PADDED_VALUE_DIM": padded(value_dim),
        "SLOTS": layout.slots,
        "RAW_ROWS": layout.raw_rows,
        "LOOKAHEAD": layout.lookahead,
        "ROWS": max(1, ELEMENTS // padded(max(dim, value_dim))),
    }
