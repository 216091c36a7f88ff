"""Launch the kernels of cross-entropy on CUDA tensors; shapes as in op.py."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..launcher import Launcher
from . import kernels
from .cut import WARPS, constants


def forward(logits: Tensor, targets: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    logits, targets = _adjacent(logits), targets.contiguous()
    rows, vocab = logits.shape
    losses, lse = (logits.new_empty(rows, dtype=torch.float32) for _ in range(2))
    launch = _launcher("forward", vocab, ignored)
    launch((rows,), logits, targets, losses, lse, logits.stride(0))
    return losses, lse


def backward(dlosses: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, ignored: int) -> Tensor:
    logits, targets = _adjacent(logits), targets.contiguous()
    rows, vocab = logits.shape
    dlogits = logits.new_empty(rows, vocab)
    launch = _launcher("backward", vocab, ignored)
    launch(
        (rows, -(-vocab // launch.constants["BLOCK"])),
        *(dlosses, logits, targets, lse, dlogits),
        *(logits.stride(0), dlosses.stride(0)),
    )
    return dlogits


@cache
def _launcher(name: str, vocab: int, ignored: int) -> Launcher:
    fixed = {**constants(vocab, ignored), "num_warps": WARPS}
    return Launcher(getattr(kernels, f"entropy_{name}"), fixed)


def _adjacent(x: Tensor) -> Tensor:
    """x, copied only if its columns do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()
