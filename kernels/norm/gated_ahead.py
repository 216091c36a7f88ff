"""The gated norm's kernels, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .gated_launch import constants

TENSORS = ("x_ptr", "gate_ptr", "y_ptr", "dy_ptr", "dx_ptr", "dgate_ptr")
INTEGERS = (
    *(f"{x}_{axis}" for x in ("x", "gate", "dy") for axis in ("batch", "token", "head")),
    *("tokens", "rows", "turns"),
)


def jobs(heads: int, dim: int, gate: bool, dtype: str) -> list[Job]:
    """Forward and backward of gated_norm(); the same on every architecture."""
    types = dict.fromkeys(TENSORS, POINTERS[dtype]) | dict.fromkeys(INTEGERS, "i32")
    types |= {"weight_ptr": "*fp32", "partial_ptr": "*fp32"}
    fixed = constants(heads, dim, True, 1e-6)
    options = {"num_warps": fixed.pop("num_warps")}
    if not gate:
        fixed |= {"gate_ptr": None, "dgate_ptr": None}
        types = {name: kind for name, kind in types.items() if name not in fixed}
    load = partial(importlib.import_module, f"{__package__}.gated")
    return [
        Job(f"gated norm {name}", load, f"gated_norm_{name}", types, fixed, options,
            f"{fixed['ROWS']} heads")
        for name in ("forward", "backward")
    ]  # fmt: skip
