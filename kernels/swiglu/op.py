"""silu(gate) * up as an op that torch can see through.

On CUDA two kernels, elsewhere plain PyTorch. Autograd by itself would keep silu(gate) for the way
back, a quarter of what a feed-forward network keeps; here it is made again from gate. No FLOP
formula: torch counts products of matrices.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..loader import namespace

NAMESPACE = namespace(__name__)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, two tensors of one shape and dtype: the same, contiguous."""
    if gate.shape != up.shape or gate.dtype != up.dtype or gate.device != up.device:
        told = " and ".join(f"{tuple(x.shape)} {x.dtype} on {x.device}" for x in (gate, up))
        raise ValueError(f"gate and up are of one shape, dtype and device, not {told}")
    result: Tensor = _swiglu(gate, up)
    return result


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda and x.dtype != torch.float64 and x.numel() > 0


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    if _on_gpu(gate):
        from . import launch  # needs triton, which a machine without CUDA may lack

        return launch.forward(gate, up)
    wide = _wide(gate)
    return (F.silu(gate.to(wide)) * up.to(wide)).to(gate.dtype).contiguous()


def _backward(dout: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    if _on_gpu(gate):
        from . import launch

        return launch.backward(dout, gate, up)
    dout, wide_gate, wide_up = (x.to(_wide(gate)) for x in (dout, gate, up))
    share = torch.sigmoid(wide_gate)
    silu = wide_gate * share
    dgate = dout * wide_up * (share + silu * (1 - share))
    return dgate.to(gate.dtype).contiguous(), (dout * silu).to(up.dtype).contiguous()


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _fake_forward(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)


def _fake_backward(dout: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor] = _swiglu_backward(dout, *ctx.saved_tensors)
    return gradients


_swiglu = ops.define(
    f"{NAMESPACE}::swiglu",
    "(Tensor gate, Tensor up) -> Tensor",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
)
_swiglu_backward = ops.define(
    f"{NAMESPACE}::swiglu_backward",
    "(Tensor dout, Tensor gate, Tensor up) -> (Tensor, Tensor)",
    _backward,
    _fake_backward,
)
