"""Linear maps of the few rows that a step of a small batch brings: one launch for several."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.linear import op
from . import backend


def few(x: Tensor) -> bool:
    """Whether the kernels for few rows serve x (..., dim): a step of 1 to MOST_ROWS tokens in all,
    without gradients."""
    if torch.is_grad_enabled() or not 0 < x.numel() <= op.MOST_ROWS * x.shape[-1]:
        return False
    return backend.kernels(x) and not torch.is_autocast_enabled(x.device.type)


def together(x: Tensor, *layers: nn.Module, residual: Tensor | None = None) -> Tensor | None:
    """What layers make of x (..., dim), side by side, and a residual under it if any; None where
    they are not for one launch."""
    if not (few(x) and all(_served(layer, x) for layer in layers)):
        return None
    if residual is not None and residual.dtype != x.dtype:
        return None
    biases = [layer.bias for layer in layers if isinstance(layer.bias, Tensor)]
    if len(biases) not in (0, len(layers)):
        return None
    return op.linear(x, [layer.get_parameter("weight") for layer in layers], biases, residual)


def linear(x: Tensor, layer: nn.Module, residual: Tensor | None = None) -> Tensor:
    """What a layer makes of x, added to a residual if any."""
    y = together(x, layer, residual=residual)
    if y is not None:
        return y
    result: Tensor = layer(x)
    return result if residual is None else residual + result


def gated(x: Tensor, gate: nn.Module, up: nn.Module) -> Tensor | None:
    """silu(gate(x)) * up(x), of layers without biases; None where they are not for one launch."""
    if not (few(x) and _served(gate, x) and _served(up, x)):
        return None
    return op.gated(x, gate.get_parameter("weight"), up.get_parameter("weight"))


def plain(layer: nn.Module) -> bool:
    """Whether a layer is its weights and no more: one that is wrapped, watched or patched, or whose
    weight is a tensor of another kind (quantized, sharded), has a way of its own to be called."""
    if type(layer) is not nn.Linear or type(layer.weight) not in (nn.Parameter, Tensor):
        return False
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    return not (layer._backward_hooks or layer._backward_pre_hooks)


def _served(layer: nn.Module, x: Tensor) -> bool:
    return plain(layer) and layer.get_parameter("weight").dtype == x.dtype
