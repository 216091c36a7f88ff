"""The scorer's kernels as jobs that can be built for a GPU that need not be here."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import loader
from ..ahead import POINTERS, Job
from . import render
from .network import Network, precision
from .reference import DROPOUT_STEPS
from .tiles import choose

FLOATS = {f"{name}_ptr" for name in ("b", "z", "dz", "to", "vectors")}
SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}
INDICES = {f"{name}_ptr" for name in ("starts", "ends", "begin")}
"""What is float32 and int32 whatever the dtype."""
PLACES = ("starts_ptr", "ends_ptr", "begin_ptr", "k_ring", "v_ring", "z_ring")


def jobs(network: Network, dropout: float, dtype: str, architecture: str) -> list[Job]:
    """Every kernel of a layer: scoring in training, in evaluation and in decoding, the backward
    passes; sequences not packed."""
    dropped = round(dropout * DROPOUT_STEPS)
    one = partial(job, network, dtype, architecture)
    seed = () if dropped else ("seed_ptr",)
    saved = tuple(f"pre{layer.index}_ptr" for layer in network.layers)
    rolling = "_rolling" if network.rolls(SIZES[dtype], architecture) else ""
    return [
        one(f"forward{rolling}", dropped, (*seed, *PLACES)),
        one(f"forward{rolling}", 0, ("seed_ptr", *saved, *PLACES)),
        one(f"forward{rolling}", 0, ("seed_ptr", *saved, *PLACES[:2])),
        one(f"backward_inputs{rolling}", dropped, (*seed, *PLACES[:2])),
        one("backward_weights", dropped, (*seed, *PLACES[:2])),
        one("pack", 0, ()),
    ]


def job(
    network: Network,
    dtype: str,
    architecture: str,
    name: str,
    dropped: int,
    absent: tuple[str, ...],
) -> Job:
    """One kernel with `dropped` of 65,536 inputs, without the arguments that are `absent`."""
    size = SIZES[dtype]
    tile: dict[str, Any] = choose(name, network, architecture, size)
    rows = tile.get("BLOCK") or tile["ROWS"]
    tile |= {"DROPPED": dropped, "PRECISION": precision(size)}
    tile |= {"K_ROW": network.heads * network.key_dim, "V_ROW": network.heads * network.value_dim}
    tile.pop("PER_SM", None)
    load = partial(loader.load, network.stem(name), render.render(name, network))
    function = f"scorer_{name}"
    arguments = getattr(load(), function).arg_names
    given = [each for each in arguments if not each.isupper() and each not in absent]
    return Job(
        name=network.stem(name),
        load=load,
        function=function,
        types={each: _kind(each, dtype) for each in given},
        constants={each: tile.pop(each, None) for each in arguments if each not in given},
        options={name: tile[name] for name in tile if not name.isupper()},
        tile=f"{rows} rows",
    )


def _kind(argument: str, dtype: str) -> str:
    """Triton's name for an argument's type."""
    if not argument.endswith("_ptr"):
        return "i32"
    if argument == "seed_ptr":
        return "*i64"
    if argument in INDICES:
        return "*i32"
    return "*fp32" if argument in FLOATS else POINTERS[dtype]
