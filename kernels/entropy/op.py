"""Cross-entropy as an op that torch can see through: logits in their own dtype, sums in float32.

The plain way copies bfloat16 logits to float32 and keeps their log-softmax, in float32 too: at a
vocabulary of 32,000 and 32,768 tokens 12 GB at the peak, here 4. Shapes: logits (M, V), targets
(M,) int64. On CUDA two kernels, elsewhere plain PyTorch. No FLOP formula: torch counts products of
matrices.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..loader import namespace

NAMESPACE = namespace(__name__)
IGNORED = -100
"""A target that counts for nothing, as torch's own."""


def entropy(logits: Tensor, targets: Tensor, ignored: int = IGNORED) -> Tensor:
    """-log softmax(logits)[target] in nats: (M,) float32 (float64 for float64 logits), 0 where the
    target is `ignored`."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1] or not logits.numel():
        told = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"logits are (M, V) and targets (M,), not empty, and not {told}")
    if not logits.is_floating_point() or targets.dtype != torch.int64:
        raise ValueError(
            f"logits are floats and targets int64, not {logits.dtype} and {targets.dtype}"
        )
    if targets.device != logits.device:
        raise ValueError(f"logits lie on {logits.device}, targets on {targets.device}")
    losses: Tensor = _entropy(logits, targets, ignored)[0]
    return losses


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda and x.dtype != torch.float64


def _forward(logits: Tensor, targets: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Losses and log-sum-exps."""
    if _on_gpu(logits):
        from . import launch  # needs triton, which a machine without CUDA may lack

        return launch.forward(logits, targets, ignored)
    wide = logits.to(_wide(logits))
    losses = F.cross_entropy(wide, targets, ignore_index=ignored, reduction="none")
    return losses, wide.logsumexp(-1)


def _backward(
    dlosses: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, ignored: int
) -> Tensor:
    if _on_gpu(logits):
        from . import launch

        return launch.backward(dlosses, logits, targets, lse, ignored)
    share = torch.exp(logits.to(lse.dtype) - lse[:, None])
    share[torch.arange(len(share), device=share.device), targets.clamp(min=0)] -= 1
    weight = dlosses.masked_fill(targets == ignored, 0)[:, None]
    return (share * weight).to(logits.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _fake_forward(logits: Tensor, targets: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    losses = logits.new_empty(len(logits), dtype=_wide(logits))
    return losses, torch.empty_like(losses)


def _fake_backward(
    dlosses: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, ignored: int
) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, ctx.ignored = inputs
    ctx.save_for_backward(logits, targets, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, dlosses: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return _entropy_backward(dlosses, *ctx.saved_tensors, ctx.ignored), None, None


_entropy = ops.define(
    f"{NAMESPACE}::entropy",
    "(Tensor logits, Tensor targets, int ignored) -> (Tensor, Tensor)",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
)
_entropy_backward = ops.define(
    f"{NAMESPACE}::entropy_backward",
    "(Tensor dlosses, Tensor logits, Tensor targets, Tensor lse, int ignored) -> Tensor",
    _backward,
    _fake_backward,
)
