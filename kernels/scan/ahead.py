"""The kernels of a rule for GPUs that need not be here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..ahead import Job
from .launch import module
from .source import Kernel

NUMBERS = ("length", "segments", "sequences")


def jobs(kernel: Kernel) -> Iterator[Job]:
    """Both passes, and the one forward that keeps no states."""
    for name, keep in (("forward", False), ("forward", True), ("backward", None)):
        function = f"scan_{name}"
        types = dict.fromkeys(kernel.arguments(function), "*fp32") | {"counts": "*i64"}
        types |= {each: "i32" for each in NUMBERS if each in types}
        yield Job(
            f"{function}{kernel.stem.removeprefix('scan')}",
            partial(module, kernel),
            function,
            types,
            {} if keep is None else {"KEEP": keep},
            {"num_warps": kernel.warps},
            f"{kernel.key_tile} keys x {kernel.value_tile} values",
        )
