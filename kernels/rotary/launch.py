"""Launch the rotary kernels on CUDA tensors; shapes as in kernels.py."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..launcher import Launcher
from . import kernels
from .cut import Cut, constants, cut


def forward(
    x: Tensor, positions: Tensor, weight: Tensor | None, theta: float, half: int, eps: float
) -> Tensor:
    """x normed and turned, contiguous."""
    x = _adjacent(x)
    y = x.new_empty(x.shape)
    work = cut(x.shape[0] * x.shape[1], *x.shape[2:], half)
    _launcher("forward", x.shape[3], theta, half, eps, work.rows)(
        (work.row_blocks, work.head_blocks),
        *(x, positions, weight, y),
        *x.stride()[:3],
        *_sizes(x, positions, work),
    )
    return y


def backward(
    dy: Tensor,
    x: Tensor | None,
    positions: Tensor,
    weight: Tensor | None,
    theta: float,
    half: int,
    eps: float,
) -> tuple[Tensor, Tensor | None]:
    """dx, contiguous, and the weight's gradient. x is read only where there is a weight."""
    dy = _adjacent(dy)
    x = dy if x is None else _adjacent(x)
    dx = dy.new_empty(dy.shape)
    work = cut(dy.shape[0] * dy.shape[1], *dy.shape[2:], half)
    partial = None
    if weight is not None:
        programs = work.row_blocks * work.head_blocks
        partial = dy.new_empty(programs, dy.shape[3], dtype=torch.float32)
    _launcher("backward", dy.shape[3], theta, half, eps, work.rows)(
        (work.row_blocks, work.head_blocks),
        *(dy, x, positions, weight, dx, partial),
        *dy.stride()[:3],
        *x.stride()[:3],
        *_sizes(dy, positions, work),
    )
    if weight is None or partial is None:
        return dx, None
    return dx, partial.sum(0).to(weight.dtype)


@cache
def _launcher(name: str, dim: int, theta: float, half: int, eps: float, rows: int) -> Launcher:
    kernel = getattr(kernels, f"rotary_{name}")
    return Launcher(kernel, constants(dim, theta, half, eps, rows))


def _sizes(x: Tensor, positions: Tensor, work: Cut) -> tuple[int, ...]:
    """Strides of positions (0 where all sequences share them), tokens, rows, heads, share."""
    batch, tokens, heads, _ = x.shape
    across = positions.stride(0) if positions.shape[0] > 1 else 0
    return across, positions.stride(1), tokens, batch * tokens, heads, work.share


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
