"""The RMS norm of a step's rows as an op. x (..., dim), weight (dim,). There is no gradient.

On CUDA the kernel of rms.py runs, elsewhere, and in float64, PyTorch's own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..launcher import Launcher, early
from ..loader import namespace

NAMESPACE = namespace(__name__)
MAX_DIM = 16_384
WARPS = 4


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, in float32 and rounded once: like x, contiguous."""
    if x.numel() == 0 or not 1 <= x.shape[-1] <= MAX_DIM:
        raise ValueError(f"x is (..., 1 to {MAX_DIM}) and not empty, not {tuple(x.shape)}")
    if weight.shape != x.shape[-1:] or not weight.is_contiguous():
        raise ValueError(f"weight is ({x.shape[-1]},), side by side, not {tuple(weight.shape)}")
    if weight.device != x.device:
        raise ValueError(f"x lies on {x.device}, its weight on {weight.device}")
    y: Tensor = _rms(x.reshape(-1, x.shape[-1]), weight, eps)
    return y.view(x.shape)


def _forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(rows, dim)"""
    if not x.is_cuda or x.dtype == torch.float64:
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), weight.shape, weight.to(wide), eps).to(x.dtype)
    x = x if x.stride(1) == 1 else x.contiguous()
    y = x.new_empty(x.shape)
    _launcher(x.shape[1], eps, early(x.device.index))((len(x),), x, weight, y, x.stride(0))
    return y


def _fake(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@cache
def _launcher(dim: int, eps: float, soon: bool) -> Launcher:
    from .rms import rms_rows  # needs triton, which a machine without CUDA may lack

    return Launcher(rms_rows, constants(dim, eps, soon) | {"num_warps": WARPS, "launch_pdl": soon})


def constants(dim: int, eps: float, soon: bool) -> dict[str, Any]:
    """What the kernel is specialised on."""
    padded = 1 << max(dim - 1, 0).bit_length()
    return {"EPS": eps, "WIDTH": dim, "PADDED": padded, "EARLY": soon}


_rms = ops.define(
    f"{NAMESPACE}::rms", "(Tensor x, Tensor weight, float eps) -> Tensor", _forward, _fake
)
