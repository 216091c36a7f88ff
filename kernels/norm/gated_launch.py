"""Launch the gated norm's kernels on CUDA tensors; shapes as in gated.py."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..launcher import Launcher
from . import gated

ELEMENTS = 2048
"""Of a block, padding included: 16 of each tensor for each thread."""
PROGRAMS = 1056
"""Of the backward pass, eight for each of an H100's multiprocessors: they take turns at blocks."""
WARPS = 4
STAGES = 3
"""Blocks on their way in the backward pass."""


def forward(x: Tensor, gate: Tensor | None, weight: Tensor, silu: bool, eps: float) -> Tensor:
    x, gate = _adjacent(x), None if gate is None else _adjacent(gate)
    y = x.new_empty(x.shape)
    rows = y.numel() // x.shape[3]
    fixed = constants(x.shape[2], x.shape[3], silu, eps)
    _launcher("forward", tuple(fixed.items()))(
        (-(-rows // fixed["ROWS"]),),
        *(x, gate, weight, y),
        *(*_strides(x), *_strides(gate)),
        *(x.shape[1], rows),
    )
    return y


def backward(
    dy: Tensor, x: Tensor, gate: Tensor | None, weight: Tensor, silu: bool, eps: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """dx, dgate (both contiguous) and the weight's gradient in float32."""
    dy, x, gate = _adjacent(dy), _adjacent(x), None if gate is None else _adjacent(gate)
    dx = x.new_empty(x.shape)
    dgate = None if gate is None else gate.new_empty(gate.shape)
    rows = dx.numel() // x.shape[3]
    fixed = constants(x.shape[2], x.shape[3], silu, eps)
    blocks = -(-rows // fixed["ROWS"])
    turns = -(-blocks // PROGRAMS)
    programs = -(-blocks // turns)
    partial = x.new_empty(programs, x.shape[3], dtype=torch.float32)
    _launcher("backward", tuple(fixed.items()))(
        (programs,),
        *(dy, x, gate, weight, dx, dgate, partial),
        *(*_strides(dy), *_strides(x), *_strides(gate)),
        *(x.shape[1], rows, turns),
    )
    return dx, dgate, partial.sum(0)


def constants(heads: int, dim: int, silu: bool, eps: float) -> dict[str, Any]:
    """What the kernels are specialised on."""
    padded = 1 << max(dim - 1, 0).bit_length()
    rows = max(1, ELEMENTS // padded)
    sizes = {"HEADS": heads, "DIM": dim, "PADDED": padded, "ROWS": rows}
    return {"EPS": eps, "SILU": silu} | sizes | {"STAGES": STAGES, "num_warps": WARPS}


@cache
def _launcher(name: str, fixed: tuple[tuple[str, Any], ...]) -> Launcher:
    kernel = getattr(gated, f"gated_norm_{name}")
    named = (*kernel.arg_names, "num_warps")
    return Launcher(kernel, {key: value for key, value in fixed if key in named})


def _strides(x: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if x is None else x.stride()[:3]


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
