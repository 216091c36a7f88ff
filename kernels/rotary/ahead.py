"""The rotary kernels of a spec, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import constants, cut

INTEGERS = (
    *("tokens", "rows", "heads", "share", "positions_batch", "positions_token"),
    *(f"{x}_{axis}" for x in ("x", "dy") for axis in ("batch", "token", "head")),
)


def jobs(
    heads: int, dim: int, half: int, norm: bool, dtype: str, architecture: str
) -> list[Job]:
    """Forward and backward of rotate(), for long inputs; the same on every architecture."""
    rows = cut(1 << 20, heads, dim, half).rows
    fixed = constants(dim, 1e4, half, 1e-6, rows)
    types = dict.fromkeys(("x_ptr", "y_ptr", "dy_ptr", "dx_ptr"), POINTERS[dtype])
    types |= {"positions_ptr": "*i64"} | dict.fromkeys(INTEGERS, "i32")
    optional = ("weight_ptr", "partial_ptr")
    if norm:
        types |= dict.fromkeys(optional, "*fp32")
    else:
        fixed |= dict.fromkeys(optional)
    load = partial(importlib.import_module, f"{__package__}.kernels")
    return [
        Job(f"rotary {name}", load, f"rotary_{name}", types, fixed, tile=f"{rows} tokens")
        for name in ("forward", "backward")
    ]
