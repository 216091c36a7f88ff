"""Positions: rotary embeddings and linear biases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.rotary.op import MAX_HEAD_DIM, rotate
from . import backend
from .norm import LayerNorm, RMSNorm


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al., 2021), halves rotated against each other."""

    theta: float = 10_000.0
    fraction: float = 1.0


@dataclass(frozen=True)
class Alibi:
    """A linear penalty on distance, one slope per head (Press et al., 2022)."""


def rotated(
    x: Tensor, positions: Tensor, rope: Rope, norm: RMSNorm | LayerNorm | None = None
) -> Tensor:
    """x (B, T, heads, D) after its norm, if any, turned by its positions (B, T)."""
    fused = x.shape[-1] <= MAX_HEAD_DIM and backend.kernels(x)
    weight = norm.weight if fused and isinstance(norm, RMSNorm) else None
    if norm is not None and weight is None:
        x = norm(x)
    if not fused:
        turned = apply_rope(x.transpose(1, 2), positions, rope.theta, rope.fraction)
        return turned.transpose(1, 2)
    eps = 0.0 if norm is None else norm.eps
    return rotate(x, positions, theta=rope.theta, fraction=rope.fraction, weight=weight, eps=eps)


def apply_rope(x: Tensor, positions: Tensor, theta: float, fraction: float = 1.0) -> Tensor:
    """Rotate the first `fraction` of the channels of x (N, heads, T, D) by its positions (N, T).

    Channel i turns together with channel i + half, at theta^(-i / half) radians per token. Angles
    are float32 (float64 for float64 x); the result has the dtype of x.
    """
    half = int(x.shape[-1] * fraction) // 2
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    steps = torch.arange(half, dtype=torch.float64, device=x.device) / half
    angles = positions[:, None, :, None].to(precision) * (theta**-steps).to(precision)
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :half].to(precision), x[..., half : 2 * half].to(precision)
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), x[..., 2 * half :]], dim=-1)
