"""Launches of a rule's kernels."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .. import loader
from ..launcher import Launcher
from .rule import Axes, Equations, Unsupported, steps_of
from .source import SEGMENT, Kernel

PACKAGE = __package__ or ""


@cache
def kernel(equations: Equations, heads: int, key: int, value: int) -> Kernel:
    """An axis that nothing has is of size 1."""
    axes = {axis for _, own in (*equations.states, *equations.operands) for axis in own}
    sizes = (key if "key" in axes else 1, value if "value" in axes else 1)
    return Kernel(steps_of(equations), heads, *sizes)


@cache
def problem(equations: Equations, heads: int, key: int, value: int) -> str | None:
    """Why no kernel serves these equations, if so."""
    try:
        steps_of(equations)
    except Unsupported as error:
        return f"no kernel has {error}"
    if not equations.operands:
        return "no kernel serves equations that take nothing of a token"
    if kernel(equations, heads, key, value).fits:
        return None
    return f"states of {key} x {value} are too large for a kernel of these equations"


def module(kernel: Kernel) -> ModuleType:
    return loader.kernel(PACKAGE, kernel.stem, lambda: kernel.text)


@cache
def _launcher(kernel: Kernel, name: str, keep: bool) -> Launcher:
    constants = {"KEEP": keep} if name == "scan_forward" else {}
    return Launcher(getattr(module(kernel), name), {**constants, "num_warps": kernel.warps})


def forward(
    kernel: Kernel, operands: list[Tensor], states: list[Tensor], counts: Tensor, keep: bool
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """o (N, T, A, V), the states after, and with `keep` those before each segment.

    operands (N, T, A, *axes), states (N, A, *axes), all contiguous and in float32; counts (N,)."""
    batch, length = operands[0].shape[:2]
    segments = -(-length // SEGMENT)
    o = operands[0].new_zeros(batch, length, kernel.heads, kernel.value)
    after = [torch.empty_like(x) for x in states]
    kept = [x.new_empty(*x.shape[:2], segments if keep else 0, *x.shape[2:]) for x in states]
    launch = _launcher(kernel, "scan_forward", keep)
    launch((kernel.blocks, batch * kernel.heads), *operands, *states, *after, *kept, o, counts,
           length, segments)  # fmt: skip
    return o, after, kept


def backward(
    kernel: Kernel,
    operands: list[Tensor],
    kept: list[Tensor],
    counts: Tensor,
    d_o: Tensor,
    d_after: list[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the operands and of the states before the first token."""
    batch, length = operands[0].shape[:2]
    equations, rows = kernel.steps.equations, batch * kernel.heads
    held = [
        d_o.new_empty(rows * kernel.blocks, SEGMENT, kernel.tile_size(axes))
        for _, axes in equations.states
    ]
    d_before = [_room(kernel, x, axes) for x, (_, axes) in
                zip(d_after, equations.states, strict=True)]  # fmt: skip
    d_operands = [_room(kernel, x, axes) for x, (_, axes) in
                  zip(operands, equations.operands, strict=True)]  # fmt: skip
    launch = _launcher(kernel, "scan_backward", False)
    launch((kernel.blocks, rows), *operands, *kept, *held, *d_after, *d_before, *d_operands, d_o,
           counts, length, kept[0].shape[2], batch)  # fmt: skip
    return [_whole(x) for x in d_operands], [_whole(x) for x in d_before]


def _room(kernel: Kernel, x: Tensor, axes: Axes) -> Tensor:
    """For a gradient like x: zero, and one for each block where blocks share it."""
    return x.new_zeros(1 if "value" in axes else kernel.blocks, *x.shape)


def _whole(x: Tensor) -> Tensor:
    return x[0] if x.shape[0] == 1 else x.sum(0)
