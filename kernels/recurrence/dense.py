"""The recurrence in plain PyTorch: what runs where Triton does not. Shapes as in op.py."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from . import chunked


def recurrence(
    by_token: tuple[Tensor | None, ...],
    state: Tensor | None,
    cu_seqlens: Tensor | None,
    delta: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o and the last state. by_token: q, k, v, g and b."""
    if cu_seqlens is None:
        return _one(by_token, state, delta, scale)
    parts = [
        _one(
            tuple(None if x is None else x[:, low:high] for x in by_token),
            None if state is None else state[n : n + 1],
            delta,
            scale,
        )
        for n, (low, high) in enumerate(pairwise(cu_seqlens.tolist()))
    ]
    return torch.cat([o for o, _ in parts], 1), torch.cat([last for _, last in parts])


def _one(
    by_token: tuple[Tensor | None, ...], state: Tensor | None, delta: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Sequences of one length; of none, too."""
    q, k, v, g, b = by_token
    assert q is not None and k is not None and v is not None
    o, last, _ = chunked.recurrence(q, k, v, g, b, state, delta=delta, scale=scale)
    return o, last
