"""Build the attention kernels for a GPU that need not be here, and read what they take of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .. import ahead, loader
from ..ahead import LIMITS, POINTERS, Job, Resources
from . import render
from .tiles import choose
from .variant import DTYPES, Tile, Variant, precision

INDICES = {
    *("starts", "ends", "numbers", "edges", "death", "kept", "counts", "held", "alive"),
    *("list", "count", "slots", "until"),
}
FLOATS = {
    *("lse", "dlse", "delta", "dscore", "dk_held", "dv_held", "dk_sinks", "dv_sinks"),
    *("slopes", "sink_logits"),
}
"""What is int32 and float32 whatever the dtype."""


def job(
    name: str, variant: Variant, dtype: str, architecture: str, tile: Tile | None = None
) -> Job:
    """One pass, in the tile that the table has for it unless another is asked for."""
    tile = tile or choose(name, variant, architecture, DTYPES[dtype])
    load = partial(loader.load, variant.stem(name), render.render(name, variant))
    function = f"attention_{name}"
    arguments = getattr(load(), function).arg_names
    sizes = tile.options(name)
    constants = {"PRECISION": precision(dtype), "WIDE": False, **sizes}
    return Job(
        name=variant.stem(name),
        load=load,
        function=function,
        types={each: _kind(each, dtype) for each in arguments if not each.isupper()},
        constants={each: constants[each] for each in arguments if each.isupper()},
        options={each: size for each, size in sizes.items() if each.islower()},
        tile=f"{tile.own} x {tile.step}",
    )


def jobs(variant: Variant, dtype: str, architecture: str) -> list[Job]:
    """Every pass of a variant."""
    return [job(name, variant, dtype, architecture) for name in render.passes(variant)]


def build(
    name: str,
    variant: Variant,
    architecture: str,
    dtype: str = "bfloat16",
    tile: Tile | None = None,
) -> Any:
    """The compiled kernel of one pass, as Triton makes it for aligned inputs."""
    return ahead.build(job(name, variant, dtype, architecture, tile), architecture)


def resources(compiled: Any, scratch: Path | None = None) -> Resources:
    """What the assembler says of a compiled kernel."""
    return ahead.resources(compiled)


def _kind(argument: str, dtype: str) -> str:
    """Triton's name for an argument's type."""
    if not argument.endswith("_ptr"):
        return "i32"
    name = argument.removesuffix("_ptr")
    if name == "pairs":
        return "*i64"
    if name in INDICES:
        return "*i32"
    return "*fp32" if name in FLOATS else POINTERS[dtype]


__all__ = ["LIMITS", "Job", "Resources", "build", "job", "jobs", "resources"]
