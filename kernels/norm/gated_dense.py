"""The gated norm in plain PyTorch: what runs where Triton does not. Shapes as in gated.py.

Gradients are written out, as an op's own backward pass may not differentiate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def forward(x: Tensor, gate: Tensor | None, weight: Tensor, silu: bool, eps: float) -> Tensor:
    wide = _wide(x)
    y = wide * _scale(wide, eps) * weight.to(wide.dtype)
    if gate is not None:
        gate = gate.to(wide.dtype)
        y = y * (F.silu(gate) if silu else gate.sigmoid())
    return y.to(x.dtype).contiguous()


def backward(
    dy: Tensor, x: Tensor, gate: Tensor | None, weight: Tensor, silu: bool, eps: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """dx, dgate, and the weight's gradient in float32 at least."""
    wide, d, dgate = _wide(x), _wide(dy), None
    scale = _scale(wide, eps)
    normed, weight = wide * scale, weight.to(wide.dtype)
    if gate is not None:
        share = _wide(gate).sigmoid()
        slope, activation = share * (1 - share), share
        if silu:
            z = _wide(gate)
            slope, activation = share * (1 + z * (1 - share)), z * share
        dgate = (d * normed * weight * slope).to(gate.dtype).contiguous()
        d = d * activation
    dw = (d * normed).sum((0, 1, 2))
    d = d * weight
    dx = (d - normed * (d * normed).mean(-1, keepdim=True)) * scale
    return dx.to(x.dtype).contiguous(), dgate, dw


def _scale(x: Tensor, eps: float) -> Tensor:
    return (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
