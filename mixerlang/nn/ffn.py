"""Feed-forward networks, (B, T, dim) -> same, added to a residual if one is given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.swiglu.op import swiglu
from . import backend
from .activation import ACTIVATIONS
from .linear import gated, linear

LARGE = 2**24
"""Numbers from which on one launch pays in place of two, though an op costs the host more."""


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, 2020)."""

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        h = gated(x, self.gate_proj, self.up_proj)
        if h is None:
            h = _product(self.gate_proj(x), self.up_proj(x))
        return linear(h, self.down_proj, residual)


def _product(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of which the op keeps less for the way back. torch.compile makes a kernel of
    the plain form, and keeps as little."""
    pays = torch.is_grad_enabled() or gate.numel() >= LARGE
    if pays and backend.kernels(gate) and not torch.compiler.is_compiling():
        return swiglu(gate, up)
    return F.silu(gate) * up


class Mlp(nn.Module):
    """down(activation(up(x)))."""

    def __init__(
        self, dim: int, *, hidden: int, activation: str = "gelu", bias: bool = False
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.up_proj = nn.Linear(dim, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return linear(self.activation(linear(x, self.up_proj)), self.down_proj, residual)
