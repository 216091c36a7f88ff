"""The recurrence's kernels as jobs that can be built for a GPU that need not be here."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import loader
from ..ahead import POINTERS, Job
from . import render
from .tiles import PASSES, Tile, choose
from .variant import Variant

ROWS = ("rows", "system", "g", "b", "dg", "db", "fade", "left")
STATES = ("start", "last", "dlast", "dstart", "local", "moves", "first", "starts")
FLOATS = {f"{name}_ptr" for name in (*ROWS, *STATES)}
"""What is float32 whatever the dtype; so are the sums over value heads, dq and dk, in a group."""
ABSENT = ("table_ptr",)


def jobs(variant: Variant, dtype: str, architecture: str) -> list[Job]:
    """Every pass, of sequences that are not packed: in training, and (scan) afterwards."""
    one = partial(job, variant, dtype, architecture)
    saved = ("written_ptr", "states_ptr", "fade_ptr")
    fade = ("fade_ptr",) if variant.delta or variant.decay == "none" else ()
    plain = () if variant.delta or variant.step else ("written_ptr",)
    return [
        *([one("decays")] if variant.decay == "vector" else []),
        one("scores"),
        *([one("scores", absent=("system_ptr",)), one("solve")] if variant.delta else []),
        one("scan", absent=saved),
        one("scan", absent=("o_ptr", "fade_ptr", *plain)),
        one("scan", absent=("o_ptr", *saved[:2], "start_ptr", *fade), moves=variant.delta),
        one("join"),
        one("join", back=True),
        one("reverse"),
        one("inside"),
        one("gradients"),
    ]


def job(
    variant: Variant,
    dtype: str,
    architecture: str,
    name: str,
    absent: tuple[str, ...] = (),
    tile: Tile | None = None,
    moves: bool = False,
    back: bool = False,
) -> Job:
    """One pass without the arguments that are `absent`, by its own tile or another."""
    assert name in PASSES
    size = 4 if dtype == "float32" else 2
    constants: dict[str, Any] = tile or choose(name, variant, architecture, size)
    told = ", ".join(f"{key} {value}" for key, value in constants.items())
    constants = constants | {"PRECISION": "ieee" if size == 4 else "tf32"}
    constants |= {"SOLVE_PRECISION": "tf32x3", "MOVES": moves, "BACK": back}
    load = partial(loader.load, variant.stem(name), render.render(name, variant))
    function = f"recurrence_{name}"
    gone = {*ABSENT, *absent, *_missing(variant)}
    arguments = getattr(load(), function).arg_names
    given = [each for each in arguments if not each.isupper() and each not in gone]
    return Job(
        name=variant.stem(name),
        load=load,
        function=function,
        types={each: _kind(each, variant, dtype) for each in given},
        constants={each: constants.pop(each, None) for each in arguments if each not in given},
        options={name: constants[name] for name in constants if not name.isupper()},
        tile=told,
    )


def _missing(variant: Variant) -> tuple[str, ...]:
    """What a variant's kernels are not given."""
    absent = {
        "solve_ptr": not variant.delta,
        "system_ptr": not variant.delta,
        "dsystem_ptr": not variant.delta,
        "moves_ptr": variant.decay == "none" and not variant.delta,
        "b_ptr": not variant.step,
        "db_ptr": not variant.step,
        "g_ptr": variant.decay == "none",
        "dg_ptr": variant.decay == "none",
    }
    return tuple(name for name, gone in absent.items() if gone)


def _kind(argument: str, variant: Variant, dtype: str) -> str:
    """Triton's name for an argument's type."""
    if not argument.endswith("_ptr"):
        return "i32"
    if argument == "sums_ptr":
        return "*i32"
    summed = argument in ("dq_ptr", "dk_ptr") and variant.group > 1
    return "*fp32" if argument in FLOATS or summed else POINTERS[dtype]
