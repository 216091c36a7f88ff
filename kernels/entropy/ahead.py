"""The kernels of cross-entropy, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import WARPS, constants

FLOATS = ("losses_ptr", "dlosses_ptr", "lse_ptr")
IGNORED = -100


def jobs(vocab: int, dtype: str) -> list[Job]:
    """Forward and backward."""
    load = partial(importlib.import_module, f"{__package__}.kernels")
    fixed = constants(vocab, IGNORED)
    made = []
    for name in ("forward", "backward"):
        given = getattr(load(), f"entropy_{name}").arg_names
        types = {each: _kind(each, dtype) for each in given if not each.isupper()}
        job = Job(
            f"entropy {name}",
            load,
            f"entropy_{name}",
            types,
            fixed,
            {"num_warps": WARPS},
            f"{fixed['BLOCK']} columns",
        )
        made.append(job)
    return made


def _kind(argument: str, dtype: str) -> str:
    """Triton's name for an argument's type."""
    if not argument.endswith("_ptr"):
        return "i32"
    if argument == "targets_ptr":
        return "*i64"
    return "*fp32" if argument in FLOATS else POINTERS[dtype]
