"""The products of few rows, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import MOST_WEIGHTS, Cut, cut, padded

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def jobs(
    inputs: int,
    outputs: tuple[int, ...],
    dtype: str,
    architecture: str,
    *,
    rows: int = 1,
    gated: bool = False,
    bias: bool = False,
    residual: bool = False,
) -> list[Job]:
    """linear() of weights with so many outputs each, or gated() of a pair with outputs[0] each."""
    work = cut(sum(outputs), inputs, BYTES[dtype], 2 if gated else 1)
    if gated:
        pointers, fixed = ["gate_ptr", "up_ptr"], {"OUT": outputs[0]}
        absent: list[str] = []
    else:
        places = range(MOST_WEIGHTS)
        names = [f"{kind}{index}_ptr" for kind in "wb" for index in places]
        pointers = [n for n in names if int(n[1]) < len(outputs) and (bias or n[0] == "w")]
        pointers += ["residual_ptr"] if residual else []
        absent = [name for name in (*names, "residual_ptr") if name not in pointers]
        wide = [*outputs, *[0] * (MOST_WEIGHTS - len(outputs))]
        fixed = {f"OUT{index}": wide[index] for index in places}
    types = dict.fromkeys(("x_ptr", "y_ptr", *pointers), POINTERS[dtype])
    types |= {"x_row": "i32"} | ({} if gated else {"residual_row": "i32"})
    constants = fixed | _shared(inputs, rows, work, architecture) | dict.fromkeys(absent)
    name = "gated" if gated else "few"
    load = partial(importlib.import_module, f"{__package__}.kernels")
    tile = f"{work.outputs} x {work.inputs} weights"
    options = {"num_warps": work.warps}
    return [Job(f"linear {name}", load, f"linear_{name}", types, constants, options, tile)]


def _shared(inputs: int, rows: int, work: Cut, architecture: str) -> dict[str, int | None]:
    return {
        "IN": inputs,
        "ROWS": rows,
        "PADDED_ROWS": padded(rows),
        "BLOCK_OUT": work.outputs,
        "BLOCK_IN": work.inputs,
        "EARLY": architecture >= "sm_90",
    }
