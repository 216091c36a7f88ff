"""The norm of a step's rows, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .rms_op import MAX_DIM, WARPS, constants


def jobs(dim: int, dtype: str, architecture: str) -> list[Job]:
    """rms() of rows of `dim` channels."""
    types = dict.fromkeys(("x_ptr", "weight_ptr", "y_ptr"), POINTERS[dtype]) | {"x_row": "i32"}
    load = partial(importlib.import_module, f"{__package__}.rms")
    fixed = constants(dim, 1e-6, architecture >= "sm_90")
    return [Job("norm of rows", load, "rms_rows", types, fixed, {"num_warps": WARPS}, "1 row")]


__all__ = ["MAX_DIM", "jobs"]
