"""Linear maps of few rows, several in one launch: decoding's products.

Shapes: x (..., IN) of M rows in all, weights (OUT, IN), biases (OUT,). On CUDA the kernels of this
folder run, for up to MOST_ROWS rows; elsewhere dense.py. Sums are float32, rounded once. There is
no gradient: what trains has many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import dense
from .cut import MOST_ROWS, MOST_WEIGHTS

NAMESPACE = namespace(__name__)
SERVED = (torch.bfloat16, torch.float16, torch.float32)


def linear(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] = (),
    residual: Tensor | None = None,
) -> Tensor:
    """x with 1 to MOST_WEIGHTS weights, side by side: (..., sum of OUT). A bias each, or none.
    residual: of that shape, what the result is added to."""
    if not 1 <= len(weights) <= MOST_WEIGHTS:
        raise ValueError(f"{len(weights)} weights: one launch takes 1 to {MOST_WEIGHTS}")
    if biases and [b.shape for b in biases] != [w.shape[:1] for w in weights]:
        raise ValueError("a bias for each weight, one number for each of its outputs, or none")
    _check(x, weights, biases)
    shape = (*x.shape[:-1], sum(len(w) for w in weights))
    if residual is not None:
        if (residual.shape, residual.dtype, residual.device) != (shape, x.dtype, x.device):
            told = f"{residual.dtype} {tuple(residual.shape)} on {residual.device}"
            raise ValueError(f"the residual is {x.dtype} {shape} on {x.device}, not {told}")
        residual = residual.reshape(-1, shape[-1])
    y: Tensor = _linear(x.reshape(-1, x.shape[-1]), list(weights), list(biases), residual)
    return y.view(shape)


def gated(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """silu(x gate^T) * (x up^T): (..., OUT)."""
    _check(x, (gate, up), ())
    if gate.shape != up.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and up {tuple(up.shape)} are of one shape")
    y: Tensor = _gated(x.reshape(-1, x.shape[-1]), gate, up)
    return y.view(*x.shape[:-1], -1)


def _check(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    """Refuse what the kernels would read beyond."""
    if x.numel() == 0:
        raise ValueError(f"x is (..., IN) and not empty, not {tuple(x.shape)}")
    for w in weights:
        if w.dim() != 2 or w.shape[1] != x.shape[-1]:
            raise ValueError(
                f"weights are (OUT, {x.shape[-1]}) for x {tuple(x.shape)}, not {tuple(w.shape)}"
            )
    for w in (*weights, *biases):
        if w.dtype != x.dtype or w.device != x.device:
            raise ValueError(f"x is {x.dtype} on {x.device}, a weight {w.dtype} on {w.device}")


def _on_gpu(x: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether the kernels serve these; other layouts and more rows are PyTorch's."""
    served = x.is_cuda and x.dtype in SERVED and len(x) <= MOST_ROWS
    return served and all(w.is_contiguous() for w in tensors)


def _linear_forward(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], residual: Tensor | None
) -> Tensor:
    if not _on_gpu(x, [*weights, *biases]):
        return dense.linear(x, weights, biases, residual)
    from . import launch  # needs triton, which a machine without CUDA may lack

    residual = residual if residual is None or residual.stride(1) == 1 else residual.contiguous()
    return launch.linear(x.contiguous(), weights, biases, residual)


def _fake_linear(x: Tensor, weights: list[Tensor], *_: Any) -> Tensor:
    return x.new_empty(len(x), sum(len(w) for w in weights))


def _gated_forward(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    if not _on_gpu(x, [gate, up]):
        return dense.gated(x, gate, up)
    from . import launch

    return launch.gated(x.contiguous(), gate, up)


def _fake_gated(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    return x.new_empty(len(x), len(gate))


def _flops(x: tuple[int, ...], weights: list[tuple[int, ...]], *_: Any, **__: Any) -> int:
    return 2 * x[0] * sum(prod(w) for w in weights)


def _gated_flops(x: tuple[int, ...], gate: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 4 * x[0] * prod(gate)


_linear = ops.define(
    f"{NAMESPACE}::linear",
    "(Tensor x, Tensor[] weights, Tensor[] biases, Tensor? residual) -> Tensor",
    _linear_forward,
    _fake_linear,
    flops=_flops,
)
_gated = ops.define(
    f"{NAMESPACE}::linear_gated",
    "(Tensor x, Tensor gate, Tensor up) -> Tensor",
    _gated_forward,
    _fake_gated,
    flops=_gated_flops,
)

__all__ = ["MOST_ROWS", "gated", "linear"]
