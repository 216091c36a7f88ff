"""Build Triton kernels for a GPU that need not be here, and read what they take of it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

POINTERS = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
"""Triton's name of a pointer to elements of a dtype."""

LIMITS = {"sm_80": 166_912, "sm_90": 232_448}
"""Shared memory that one program may take, in bytes, by architecture."""


class Resources(NamedTuple):
    """Of one program: bytes of shared memory, registers per thread, bytes spilled per thread.

    serialized: the assembler could not let asynchronous matrix products overlap; such a kernel
    is right, and up to half as fast again.
    """

    shared: int
    registers: int
    spilled: int
    serialized: bool


@dataclass(frozen=True)
class Job:
    """A kernel to build, as plain data that other processes can take.

    name: of the kernel, for a reader. load: gives the module that holds `function`. types: Triton's
    names of its run-time arguments. constants: its compile-time arguments. options: num_warps and
    the like. tile: of the work a program does, for a reader.
    """

    name: str
    load: Callable[[], ModuleType]
    function: str
    types: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, int] = field(default_factory=dict)
    tile: str = ""


def build(job: Job, architecture: str) -> Any:
    """The compiled kernel, as Triton makes it where pointers and strides are aligned."""
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from triton.compiler import ASTSource  # type: ignore[import-not-found,import-untyped,unused-ignore]

    kernel = getattr(job.load(), job.function)
    constants = {name: job.constants[name] for name in kernel.arg_names if name in job.constants}
    signature = {name: job.types.get(name, "constexpr") for name in kernel.arg_names}
    compiled_in = {name for name, kind in signature.items() if kind == "constexpr"}
    assert compiled_in == constants.keys(), f"{job.name}: {compiled_in ^ constants.keys()}"
    source = ASTSource(kernel, signature, constants, _aligned(kernel, signature))
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    return triton.compile(source, target=target, options=dict(job.options))


def _aligned(kernel: Any, signature: Mapping[str, str]) -> dict[tuple[int, ...], Any]:
    """Attributes of the arguments that Triton specialises on multiples of 16."""
    return {
        (param.num,): [["tt.divisibility", 16]]
        for param in kernel.params
        if signature[param.name] not in ("constexpr", "fp32") and not param.do_not_specialize
    }


def resources(compiled: Any) -> Resources:
    """What the assembler says of a compiled kernel."""
    ptx = compiled.asm["ptx"]
    target = re.search(r"^\.target (\w+)", ptx, re.M)
    assert target is not None
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "kernel.ptx")
        source.write_text(ptx)
        command = [_assembler(), "-v", f"--gpu-name={target[1]}", str(source), "-o", os.devnull]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (
        int(re.search(pattern, report)[1])  # type: ignore[index]
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
    )
    return Resources(compiled.metadata.shared, registers, spilled, "are serialized" in report)


@cache
def _assembler() -> str:
    """ptxas as Triton ships it: what builds the kernels on the machine that runs them."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas")


def miscompiles(compiled: Any) -> list[str]:
    """Lines of Triton's GPU code that are known to be translated wrongly on Hopper: transposed
    accumulators that feed a product."""
    lines = compiled.asm["ttgir"].splitlines()
    return [line.strip() for line in lines if re.search(r"tt\.trans .* : tensor<[^>]*#mma", line)]
