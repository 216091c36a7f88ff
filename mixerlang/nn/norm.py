"""Norms over channels: statistics in float32 at least, output in the dtype of the input.

A norm without a width (`RMSNorm(eps=1e-5)`) says which norm is meant; `sized` builds it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.norm.rms_op import MAX_DIM, rms
from .linear import few


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), times a learned weight (Zhang and Sennrich, 2019)."""

    def __init__(self, dim: int = 0, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def sized(self, dim: int) -> RMSNorm:
        """A new norm of `dim` channels with these settings."""
        return RMSNorm(dim, eps=self.eps)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if few(x) and x.shape[-1] <= MAX_DIM:
            return rms(x, self.weight, self.eps)
        if x.dtype == self.weight.dtype:  # statistics in float32, in one kernel
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        wide = torch.promote_types(x.dtype, torch.float32)
        y = F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps)
        return y.to(x.dtype)


class LayerNorm(nn.Module):
    """Zero mean, unit variance, learned weight and bias (Ba et al., 2016)."""

    def __init__(self, dim: int = 0, *, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def sized(self, dim: int) -> LayerNorm:
        """A new norm of `dim` channels with these settings."""
        return LayerNorm(dim, eps=self.eps, bias=self.bias is not None)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        y = F.layer_norm(x.to(wide), self.weight.shape, self.weight.to(wide), bias, self.eps)
        return y.to(x.dtype)
