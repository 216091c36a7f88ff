"""The kernels that fill a state, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import Constant
from .fill_cut import WARPS, fill_constants, list_constants
from .layout import Layout

FLOATS = ("z_ptr", "state_z_ptr")
INDICES = ("death_ptr", "source_ptr", "position_ptr", "folded_ptr", "scored_ptr")
LENGTHS = ("next_ptr", "edges_ptr", "positions_ptr")


def jobs(
    layout: Layout, kv_heads: int, dim: int, value_dim: int, dtype: str, packed: bool
) -> list[Job]:
    """After the first tokens of all sequences."""
    learned, slots = layout.kind == "learned", layout.slots > 0
    there = {
        "positions_ptr": False,
        "edges_ptr": packed,
        "source_ptr": slots,
        "scored_ptr": learned,
        **dict.fromkeys(("death_ptr", "z_ptr", "state_z_ptr"), layout.evicts),
        **dict.fromkeys(("raw_ptr", "state_raw_ptr"), learned),
    }
    one = partial(_job, dtype, there)
    listing = [one("list", list_constants(layout, kv_heads))] if slots else []
    return [*listing, one("fill", fill_constants(layout, kv_heads, dim, value_dim))]


def _job(dtype: str, there: dict[str, bool], name: str, constants: dict[str, Constant]) -> Job:
    load = partial(importlib.import_module, f"{__package__}.fill")
    kernel = getattr(load(), f"decode_{name}")
    given = [each for each in kernel.arg_names if not each.isupper()]
    absent = {each: None for each in given if not there.get(each, True)}
    types = {each: _kind(each, dtype) for each in given if each not in absent}
    options = {"num_warps": WARPS}
    return Job(f"decode {name}", load, f"decode_{name}", types, constants | absent, options)


def _kind(argument: str, dtype: str) -> str:
    """Triton's name for an argument's type."""
    if not argument.endswith("_ptr"):
        return "i32"
    if argument in LENGTHS:
        return "*i64"
    if argument in INDICES:
        return "*i32"
    return "*fp32" if argument in FLOATS else POINTERS[dtype]
