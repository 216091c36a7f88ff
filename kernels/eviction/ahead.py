"""The eviction kernels of a spec, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import Job
from .cut import KERNELS, UNBOUNDED, constants, options, widths

KEYS = ("ranked_ptr", "list_ptr", "within_ptr", "whole_ptr", "before_ptr")
INTEGERS = (
    *("over_ptr", "count_ptr", "death_ptr", "number_ptr", "kept_ptr", "counts_ptr", "earlier_ptr"),
    *("held_ptr", "snapshots_ptr", "alive_ptr"),
)
SIZES = ("blocks", "tokens", "sequences", "unit", "length", "window", "budget", "sinks")


def jobs(budget: int | None, packed: bool = False) -> list[Job]:
    """The kernels in the order of their launches, the same on every architecture."""
    types = dict.fromkeys(KEYS, "*i64") | dict.fromkeys(INTEGERS, "*i32")
    types |= dict.fromkeys(SIZES, "i32")
    types |= {"z_ptr": "*fp32", "floor": "fp32", "edges_ptr": "*i64"}
    absent: dict[str, None] = {"base_ptr": None}
    if packed:
        types["table_ptr"] = "*i32"
    else:
        absent["table_ptr"] = None
    slots, block = widths(budget)
    tile = f"{block} tokens" if budget is None else f"{block} tokens, {slots} slots"
    return [
        Job(
            f"eviction {name}",
            partial(importlib.import_module, f"{__package__}.{KERNELS[name][0]}"),
            name,
            types,
            {**constants(name, slots, block), **absent},
            options(name, slots),
            tile=tile,
        )
        for name in KERNELS
        if (budget is not None or name in UNBOUNDED) and (packed or name != "place_blocks")
    ]
