"""Build the attention kernels for a GPU that need not be here, and read what they take of it."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found,import-untyped,unused-ignore]
from triton.compiler import ASTSource  # type: ignore[import-not-found,import-untyped,unused-ignore]

from .. import loader
from . import render
from .variant import Tile, Variant

POINTERS = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
LIMITS = {"sm_80": 166_912, "sm_90": 232_448}
"""Shared memory that one program may take, in bytes."""


class Resources(NamedTuple):
    """Of one program: bytes of shared memory, registers per thread, bytes spilled per thread.

    serialized: the assembler could not let asynchronous matrix products overlap; such a kernel
    is right, and up to half as fast again.
    """

    shared: int
    registers: int
    spilled: int
    serialized: bool


def build(name: str, variant: Variant, tile: Tile, architecture: str) -> Any:
    """The compiled kernel of one pass, as Triton makes it for aligned inputs."""
    module = loader.load(render.file_stem(name, variant), render.render(name, variant, tile))
    kernel = getattr(module, f"attention_{name}")
    signature = {argument: _kind(argument, variant) for argument in kernel.arg_names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if argument != "length"
    }
    source = ASTSource(kernel, signature, {}, aligned)
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    return triton.compile(source, target=target, options=module.OPTIONS)


def resources(compiled: Any, scratch: Path) -> Resources:
    """What the assembler says of a compiled kernel; `scratch`: a folder for its files."""
    source = scratch / "kernel.ptx"
    source.write_text(compiled.asm["ptx"])
    target = re.search(r"^\.target (\w+)", compiled.asm["ptx"], re.M)
    assert target is not None
    command = [_assembler(), "-v", f"--gpu-name={target[1]}", str(source), "-o", os.devnull]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (
        int(re.search(pattern, report)[1])  # type: ignore[index]
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
    )
    return Resources(compiled.metadata.shared, registers, spilled, "are serialized" in report)


def _kind(argument: str, variant: Variant) -> str:
    """Triton's name for an argument's type."""
    if not argument.endswith("_ptr"):
        return "i32"
    if argument in ("starts_ptr", "ends_ptr"):
        return "*i32"
    if argument in ("lse_ptr", "dlse_ptr", "delta_ptr"):
        return "*fp32"
    return POINTERS[variant.dtype]


@cache
def _assembler() -> str:
    """ptxas as Triton ships it: what builds the kernels on the machine that runs them."""
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas")
