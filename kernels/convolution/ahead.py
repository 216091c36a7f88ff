"""The convolution kernels, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import Part, constants, cut

INTEGERS = ("x_batch", "x_token", "channels", "tokens", "runs")
RESULTS = tuple(f"{y}{index}_ptr" for y in ("y", "dy") for index in range(3))
ROWS = ("x_ptr", "tail_ptr", "initial_ptr", "dx_ptr", *RESULTS)


def jobs(
    parts: tuple[Part, ...],
    kernel: int,
    dtype: str,
    *,
    packed: bool = False,
    bias: bool = False,
    cached: bool = False,
) -> list[Job]:
    """Forward and backward of convolve(), for long inputs; the same on every architecture.

    cached: with inputs before the first, and the tail kept.
    """
    types = dict.fromkeys(ROWS, POINTERS[dtype]) | dict.fromkeys(INTEGERS, "i32")
    types |= {"weight_ptr": "*fp32", "partial_ptr": "*fp32"}
    absent: dict[str, None] = {}
    if not cached:
        absent |= {"tail_ptr": None, "initial_ptr": None}
    if packed:
        types["places_ptr"] = "*i32"
    else:
        absent["places_ptr"] = None
    if bias:
        types["bias_ptr"] = "*fp32"
    else:
        absent["bias_ptr"] = None
    types = {name: kind for name, kind in types.items() if name not in absent}
    load = partial(importlib.import_module, f"{__package__}.kernels")
    found = []
    for name, halo in (("forward", 0), ("backward", kernel - 1)):
        work = cut(parts, 8, 4096, kernel, halo)
        fixed = constants(parts, kernel, work, halo)
        options = {"num_warps": fixed.pop("num_warps")}
        tile = f"{work.run} tokens x {work.block} channels"
        found.append(
            Job(f"convolution {name}", load, f"convolution_{name}", types, fixed | absent, options,
                tile)
        )  # fmt: skip
    return found
