"""Launch the convolution kernels on CUDA tensors; shapes as in kernels.py and op.py."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..launcher import Launcher
from ..sequences import bounds
from . import kernels
from .cut import Cut, Part, constants, cut

Parts = tuple[Part, ...]


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    parts: Parts,
    tail: Tensor | None,
) -> list[Tensor]:
    """y of each part; `tail` is filled where it is given."""
    x, places = _adjacent(x), _places(cu_seqlens, x.shape[1])
    results = [x.new_empty(*x.shape[:2], part.channels) for part in parts]
    work = cut(parts, *x.shape[:2], weight.shape[1], 0)
    _launcher("forward", parts, weight.shape[1], work, 0)(
        _grid(x, work),
        *(x, weight.contiguous(), bias, None if initial is None else initial.contiguous(), places),
        *_three(results),
        tail,
        *_sizes(x, work),
    )
    return results


def backward(
    gradients: list[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    parts: Parts,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, contiguous; the weight's gradient and the bias's, float32."""
    x, places = _adjacent(x), _places(cu_seqlens, x.shape[1])
    dx, kernel = x.new_empty(x.shape), weight.shape[1]
    work = cut(parts, *x.shape[:2], kernel, kernel - 1)
    programs = x.shape[0] * work.runs
    partial = x.new_empty(programs, kernel + 1, x.shape[2], dtype=torch.float32)
    _launcher("backward", parts, kernel, work, kernel - 1)(
        _grid(x, work),
        *_three([dy.contiguous() for dy in gradients]),
        *(x, weight.contiguous(), bias, None if initial is None else initial.contiguous(), places),
        *(dx, partial),
        *_sizes(x, work),
    )
    total = partial.sum(0)
    return dx, total[:kernel].T, total[kernel]


@cache
def _launcher(name: str, parts: Parts, kernel: int, work: Cut, halo: int) -> Launcher:
    made = getattr(kernels, f"convolution_{name}")
    fixed = constants(parts, kernel, work, halo)
    return Launcher(made, {k: v for k, v in fixed.items() if k in (*made.arg_names, "num_warps")})


def _grid(x: Tensor, work: Cut) -> tuple[int, int]:
    return sum(work.blocks), x.shape[0] * work.runs


def _three(tensors: list[Tensor]) -> list[Tensor]:
    """Of each part, and stand-ins for parts that are not there."""
    return [*tensors, tensors[0], tensors[0]][:3]


def _sizes(x: Tensor, work: Cut) -> tuple[int, ...]:
    """Strides of x, its channels and tokens, runs of a sequence."""
    return x.stride(0), x.stride(1), x.shape[2], x.shape[1], work.runs


def _places(cu_seqlens: Tensor | None, tokens: int) -> Tensor | None:
    """(3, T) int32: start, end and number of each token's sequence."""
    found = bounds(cu_seqlens, tokens)
    return found[0]._base if found else None


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
