"""The kernels of a step over the cache, to be built for a GPU that need not be here."""

from __future__ import annotations

import importlib
from functools import partial

from ..ahead import POINTERS, Job
from .cut import Constant, Plan, Shape, attend_constants, choose, update_constants, update_warps
from .layout import Layout

PROCESSORS = {"sm_80": 108, "sm_90": 132}
NUMBERS = (
    *(f"{x}_{axis}" for x in ("q", "k", "v", "raw") for axis in ("batch", "token", "head")),
    "capacity",
)
FLOATS = ("z_ptr", "new_z_ptr", "partial_ptr", "stats_ptr", "sink_logits_ptr", "slopes_ptr")
INDICES = ("position_ptr", "folded_ptr", "scored_ptr", "due_ptr", "death_ptr", "arrivals_ptr")
LENGTH = 4096
"""Of the sequences that a cache without bounds is built for; the kernels serve any."""


def jobs(
    layout: Layout,
    shape: Shape,
    dtype: str,
    architecture: str,
    *,
    softcap: float | None = None,
    sink_logits: bool = False,
    slopes: bool = False,
    batch: int = 1,
    plan: Plan | None = None,
) -> list[Job]:
    """`update` and `attend`, for a batch of so many sequences."""
    ring = layout.ring(LENGTH if layout.everything else None)
    shape = shape._replace(grows=layout.everything)
    plan = plan or choose(shape, batch, ring + layout.slots, PROCESSORS[architecture])
    several = layout.slots > 0 and shape.tokens > 1
    there = {
        "z_ptr": layout.contested > 0,
        "position_ptr": layout.slots > 0,
        "folded_ptr": layout.slots > 0,
        "raw_ptr": layout.kind == "learned",
        "new_raw_ptr": layout.kind in ("learned", "norm"),
        "scored_ptr": layout.kind == "learned",
        "due_ptr": layout.kind == "learned",
        "death_ptr": several,
        "new_z_ptr": layout.kind == "norm" and layout.contested > 0,
        "sink_logits_ptr": sink_logits,
        "slopes_ptr": slopes,
        "partial_ptr": plan.splits > 1,
        "stats_ptr": plan.splits > 1,
    }
    scale, early = shape.dim**-0.5, architecture >= "sm_90"
    one = partial(_job, dtype, there)
    return [
        one(
            "update",
            update_constants(layout, shape, ring, early),
            {"num_warps": update_warps(layout)},
        ),
        one(
            "attend_single" if shape.single else "attend",
            attend_constants(layout, shape, ring, scale, softcap, plan, early),
            {"num_warps": plan.warps, "num_stages": plan.stages},
            f"{plan.splits} x {plan.block} entries",
        ),
    ]


def _job(
    dtype: str,
    there: dict[str, bool],
    name: str,
    constants: dict[str, Constant],
    options: dict[str, int],
    tile: str = "",
) -> Job:
    load = partial(importlib.import_module, f"{__package__}.{name.removeprefix('attend_')}")
    kernel = getattr(load(), f"decode_{name}")
    given = [each for each in kernel.arg_names if not each.isupper()]
    absent = {each: None for each in given if not there.get(each, True)}
    types = {each: _kind(each, dtype) for each in given if each not in absent}
    return Job(f"decode {name}", load, f"decode_{name}", types, constants | absent, options, tile)


def _kind(argument: str, dtype: str) -> str:
    """Triton's name for an argument's type."""
    if argument in NUMBERS:
        return "i32"
    if argument == "seen_ptr":
        return "*i64"
    if argument in INDICES:
        return "*i32"
    return "*fp32" if argument in FLOATS else POINTERS[dtype]
