"""The attention op in plain PyTorch, by its whole score matrix: what runs where Triton does not.

Shapes as in launch.py. The mathematics is reference.py's; here are the layout, the log-sum-exp
and the gradients written out, as an op's own backward pass may not differentiate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o (B, T, H, E) and lse (B, H, T), in float32 at least."""
    weights, lse = _weights(q, k, cu_seqlens, window, sinks, scale)
    o = reference.grouped_matmul(weights.to(v.dtype), v.transpose(1, 2))
    return o.transpose(1, 2).contiguous(), lse


def backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv, contiguous."""
    p, _ = _weights(q, k, cu_seqlens, window, sinks, scale)
    q_, k_, v_, do_ = (x.transpose(1, 2).to(p.dtype) for x in (q, k, v, do))
    groups = k_.shape[1]
    dp = reference.grouped_matmul(do_, v_.transpose(-1, -2))
    delta = (p * dp).sum(-1, keepdim=True)
    if dlse is not None:
        delta = delta - dlse[..., None]
    ds = p * (dp - delta) * scale
    dq = reference.grouped_matmul(ds, k_)
    dk = reference.group_sum(ds.transpose(-1, -2) @ q_, groups)
    dv = reference.group_sum(p.transpose(-1, -2) @ do_, groups)
    grads = (x.transpose(1, 2).to(q.dtype).contiguous() for x in (dq, dk, dv))
    return tuple(grads)  # type: ignore[return-value]


def _weights(
    q: Tensor, k: Tensor, cu_seqlens: Tensor | None, window: int | None, sinks: int, scale: float
) -> tuple[Tensor, Tensor]:
    """softmax (B, H, T, T) and log-sum-exp (B, H, T) of the visible scores."""
    rows, columns = q.transpose(1, 2), k.transpose(1, 2)
    seen = _visible(q.shape[1], cu_seqlens, window, sinks, q.device)
    weights = reference.attention_weights(rows, columns, seen, scale)
    scores = reference.grouped_matmul(rows * scale, columns.transpose(-1, -2)).to(weights.dtype)
    return weights, scores.masked_fill(~seen, -torch.inf).logsumexp(-1)


def _visible(
    tokens: int, cu_seqlens: Tensor | None, window: int | None, sinks: int, device: torch.device
) -> Tensor:
    """(1, 1, T, T): positions count within each sequence."""
    index = torch.arange(tokens, device=device)
    start = torch.zeros_like(index)
    if cu_seqlens is not None:
        edges = cu_seqlens.to(index.dtype)
        start = edges[torch.searchsorted(edges, index, right=True) - 1]
    t, j = (index - start).view(1, 1, -1, 1), (index - start).view(1, 1, 1, -1)
    seen = reference.see_past(t, j) & (start.view(-1, 1) == start)
    if window is None:
        return seen
    return seen & (reference.see_window(t, j, window) | reference.see_sinks(t, j, sinks))
