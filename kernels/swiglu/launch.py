"""Launch the kernels of SwiGLU on CUDA tensors of one shape."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..launcher import Launcher
from . import kernels
from .cut import BLOCK, WARPS


def forward(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _launcher("forward")(_grid(gate), gate, up, out, gate.numel())
    return out


def backward(dout: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    dout, gate, up = dout.contiguous(), gate.contiguous(), up.contiguous()
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    _launcher("backward")(_grid(gate), dout, gate, up, dgate, dup, gate.numel())
    return dgate, dup


def _grid(x: Tensor) -> tuple[int]:
    return (-(-x.numel() // BLOCK),)


@cache
def _launcher(name: str) -> Launcher:
    return Launcher(getattr(kernels, f"swiglu_{name}"), {"BLOCK": BLOCK, "num_warps": WARPS})
