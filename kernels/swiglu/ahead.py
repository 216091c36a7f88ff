"""The kernels of SwiGLU, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import BLOCK, WARPS


def jobs(dtype: str) -> list[Job]:
    """Forward and backward, whatever the width."""
    names = ("gate", "up", "out", "dout", "dgate", "dup")
    types = {f"{name}_ptr": POINTERS[dtype] for name in names} | {"total": "i32"}
    load = partial(importlib.import_module, f"{__package__}.kernels")
    made = []
    for name in ("forward", "backward"):
        given = getattr(load(), f"swiglu_{name}").arg_names
        own = {each: types[each] for each in given if each in types}
        made.append(
            Job(
                f"swiglu {name}",
                load,
                f"swiglu_{name}",
                own,
                {"BLOCK": BLOCK},
                {"num_warps": WARPS},
                f"{BLOCK} numbers",
            )
        )
    return made
