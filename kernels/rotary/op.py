"""Rotary embedding, after an RMS norm where there is one, as an op that torch can see through.

Shapes: x (B, T, heads, D), any strides; positions (B, T) or (1, T) integers; weight (D,). On CUDA
the kernels of this folder run, elsewhere dense.py. No FLOP formula: torch counts products of
matrices, and an element-wise op as nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import dense

NAMESPACE = namespace(__name__)
MAX_HEAD_DIM = 1024


def rotate(
    x: Tensor,
    positions: Tensor,
    *,
    theta: float,
    fraction: float = 1.0,
    weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Norm x over its channels (with a weight), then turn them by its positions: like x.

    Of the first `fraction` of the channels, i turns together with i + half, at theta^(-i / half)
    radians per token. All in float32 (float64 for float64 x), rounded once, at the end.
    """
    _check(x, positions, weight, theta, fraction)
    half = int(x.shape[-1] * fraction) // 2
    result: Tensor = _rotate(x, positions, weight, theta, half, eps)
    return result


def _check(
    x: Tensor, positions: Tensor, weight: Tensor | None, theta: float, fraction: float
) -> None:
    """Refuse what the kernels would read beyond."""
    if x.dim() != 4 or x.numel() == 0:
        raise ValueError(f"x is (B, T, heads, D) and not empty, not {tuple(x.shape)}")
    if not x.is_floating_point() or positions.is_floating_point():
        raise ValueError(f"x is of floats and positions of integers, not {x.dtype} and "
                         f"{positions.dtype}")
    if x.shape[-1] > MAX_HEAD_DIM:
        raise ValueError(f"heads of {x.shape[-1]} channels: the kernels serve 1 to {MAX_HEAD_DIM}")
    if tuple(positions.shape) not in {(1, x.shape[1]), tuple(x.shape[:2])}:
        raise ValueError(f"positions are (B, T) or (1, T) of x {tuple(x.shape)}, not "
                         f"{tuple(positions.shape)}")
    if weight is not None and tuple(weight.shape) != (x.shape[-1],):
        raise ValueError(f"the norm's weight is ({x.shape[-1]},), not {tuple(weight.shape)}")
    if theta <= 0 or not 0 < fraction <= 1:
        raise ValueError(f"theta is positive and fraction in (0, 1], not {theta} and {fraction}")


def _on_gpu(x: Tensor, half: int) -> bool:
    """Whether the kernels serve x: where nothing turns, or in float64, dense.py does."""
    return x.is_cuda and half > 0 and x.dtype != torch.float64


def _forward(
    x: Tensor, positions: Tensor, weight: Tensor | None, theta: float, half: int, eps: float
) -> Tensor:
    if not _on_gpu(x, half):
        return dense.forward(x, positions, weight, theta, half, eps)
    from . import launch  # needs triton, which a machine without CUDA may lack

    return launch.forward(x, positions, weight, theta, half, eps)


def _fake_forward(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _backward(
    dy: Tensor,
    x: Tensor | None,
    positions: Tensor,
    weight: Tensor | None,
    theta: float,
    half: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """dx, and the weight's gradient: empty without a weight, as an op gives no None."""
    if not _on_gpu(dy, half):
        dx, dw = dense.backward(dy, x, positions, weight, theta, half, eps)
    else:
        from . import launch

        dx, dw = launch.backward(dy, x, positions, weight, theta, half, eps)
    return dx, dy.new_empty(0) if dw is None else dw


def _fake_backward(
    dy: Tensor, x: Tensor | None, positions: Tensor, weight: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    dw = dy.new_empty(0) if weight is None else weight.new_empty(weight.shape)
    return dy.new_empty(dy.shape), dw


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, positions, weight, *ctx.rule = inputs
    # Without a norm the gradient does not depend on x.
    ctx.save_for_backward(None if weight is None else x, positions, weight)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, positions, weight = ctx.saved_tensors
    dx, dw = _rotate_backward(dy, x, positions, weight, *ctx.rule)
    return dx, None, None if weight is None else dw, None, None, None


_RULE = "Tensor positions, Tensor? weight, float theta, int half, float eps"

_rotate = ops.define(
    f"{NAMESPACE}::rotate",
    f"(Tensor x, {_RULE}) -> Tensor",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
)
_rotate_backward = ops.define(
    f"{NAMESPACE}::rotate_backward",
    f"(Tensor dy, Tensor? x, {_RULE}) -> (Tensor, Tensor)",
    _backward,
    _fake_backward,
)
