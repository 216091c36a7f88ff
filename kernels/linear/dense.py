"""The products of few rows in plain PyTorch: what runs where the kernels do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], residual: Tensor | None = None
) -> Tensor:
    """x (M, IN) with every weight (OUT, IN), and its bias (OUT,), on top of a residual if any: (M,
    sum of OUT)."""
    given: Sequence[Tensor | None] = biases or [None] * len(weights)
    y = torch.cat([F.linear(x, w, b) for w, b in zip(weights, given, strict=True)], dim=-1)
    return y if residual is None else residual + y


def gated(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """silu(x gate^T) * (x up^T): (M, OUT)."""
    return F.silu(F.linear(x, gate)) * F.linear(x, up)
