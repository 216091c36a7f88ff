"""The rotary op in plain PyTorch: what runs where Triton does not.

Shapes: x (B, T, heads, D); cos and sin (B, T, 1, half), B possibly 1. Channel i turns with channel
i + half, what lies beyond 2 * half stays. Gradients are written out, as an op's own backward pass
may not differentiate.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(
    x: Tensor, positions: Tensor, weight: Tensor | None, theta: float, half: int, eps: float
) -> Tensor:
    """x, normed where there is a weight (D,), then turned; the layout of x, contiguous."""
    cos, sin = angles(positions, theta, half, _wide(x))
    y = x.to(_wide(x))
    if weight is not None:
        y = y * _scale(y, eps) * weight.to(y.dtype)
    return turn(y, cos, sin).to(x.dtype).contiguous()


def backward(
    dy: Tensor,
    x: Tensor | None,
    positions: Tensor,
    weight: Tensor | None,
    theta: float,
    half: int,
    eps: float,
) -> tuple[Tensor, Tensor | None]:
    """dx, and the weight's gradient (D,). x is read only where there is a weight."""
    cos, sin = angles(positions, theta, half, _wide(dy))
    d = turn(dy.to(_wide(dy)), cos, -sin)
    if weight is None:
        return d.to(dy.dtype).contiguous(), None
    assert x is not None
    x = x.to(d.dtype)
    scale = _scale(x, eps)
    normed, g = x * scale, d * weight.to(d.dtype)
    dx = scale * (g - normed * (g * normed).mean(-1, keepdim=True))
    return dx.to(dy.dtype).contiguous(), (d * normed).sum((0, 1, 2)).to(weight.dtype)


def angles(
    positions: Tensor, theta: float, half: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * theta^(-i / half) radians."""
    steps = torch.arange(half, dtype=torch.float64, device=positions.device) / max(half, 1)
    turns = positions[:, :, None, None].to(dtype) * (theta**-steps).to(dtype)
    return turns.cos(), turns.sin()


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    a, b = x[..., :half], x[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, x[..., 2 * half :]], dim=-1)


def _scale(x: Tensor, eps: float) -> Tensor:
    return (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
