"""RMSNorm of each head times an activation of a gate, as an op that torch can see through.

Shapes: x and gate (B, T, H, D), any strides; weight (D,), shared by heads. On CUDA the kernels of
gated.py run, elsewhere, and in float64, gated_dense.py. No FLOP formula: torch counts products of
matrices alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import gated_dense

NAMESPACE = namespace(__name__)
ACTIVATIONS = ("silu", "sigmoid")
MAX_DIM = 4096


def gated_norm(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None = None,
    *,
    activation: str = "silu",
    eps: float = 1e-6,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight * activation(gate): like x, contiguous.

    In float32 (float64 for float64 x), rounded once, at the end. Without a gate, the norm alone.
    """
    _check(x, weight, gate, activation)
    result: Tensor = _gated_norm(x, gate, weight, activation == "silu", eps)
    return result


def _check(x: Tensor, weight: Tensor, gate: Tensor | None, activation: str) -> None:
    """Refuse what the kernels would read beyond."""
    if x.dim() != 4 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(f"x is (B, T, H, D) of floats, not empty; not {tuple(x.shape)} {x.dtype}")
    if x.shape[-1] > MAX_DIM:
        raise ValueError(f"heads of {x.shape[-1]} channels: the kernels serve 1 to {MAX_DIM}")
    if weight.shape != x.shape[-1:] or not weight.is_contiguous():
        raise ValueError(
            f"weight is ({x.shape[-1]},), side by side, not {tuple(weight.shape)} "
            f"with strides {weight.stride()}"
        )
    if gate is not None and (gate.shape != x.shape or not gate.is_floating_point()):
        raise ValueError(f"gate is of floats like x, {tuple(x.shape)}, not {tuple(gate.shape)}")
    if any(y is not None and y.device != x.device for y in (weight, gate)):
        raise ValueError(f"x, weight and gate lie on one device, {x.device}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {' or '.join(ACTIVATIONS)}, not {activation}")


def _module(x: Tensor) -> Any:
    """What serves x: both have a `forward` and a `backward`."""
    if not x.is_cuda or x.dtype == torch.float64:
        return gated_dense
    from . import gated_launch  # needs triton, which a machine without CUDA may lack

    return gated_launch


def _forward(x: Tensor, gate: Tensor | None, weight: Tensor, silu: bool, eps: float) -> Tensor:
    result: Tensor = _module(x).forward(x, gate, weight, silu, eps)
    return result


def _fake_forward(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _backward(
    dy: Tensor, x: Tensor, gate: Tensor | None, weight: Tensor, silu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dgate (empty without a gate, as an op gives no None), and the weight's gradient."""
    dx, dgate, dw = _module(x).backward(dy, x, gate, weight, silu, eps)
    return dx, x.new_empty(0) if dgate is None else dgate, dw.to(weight.dtype)


def _fake_backward(
    dy: Tensor, x: Tensor, gate: Tensor | None, weight: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dgate = x.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return x.new_empty(x.shape), dgate, weight.new_empty(weight.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, gate, weight, *ctx.rule = inputs
    ctx.save_for_backward(x, gate, weight)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, gate, weight = ctx.saved_tensors
    dx, dgate, dw = _gated_norm_backward(dy, x, gate, weight, *ctx.rule)
    return dx, None if gate is None else dgate, dw, None, None


_RULE = "Tensor x, Tensor? gate, Tensor weight, bool silu, float eps"

_gated_norm = ops.define(
    f"{NAMESPACE}::gated_norm",
    f"({_RULE}) -> Tensor",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
)
_gated_norm_backward = ops.define(
    f"{NAMESPACE}::gated_norm_backward",
    f"(Tensor dy, {_RULE}) -> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)
