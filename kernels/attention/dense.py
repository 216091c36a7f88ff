"""The attention op in plain PyTorch, by its whole score matrix: what runs where Triton does not.

Shapes as in launch.py. The mathematics is reference.py's; here are the layout, the log-sum-exp
and the gradients written out, as an op's own backward pass may not differentiate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import reference
from .call import Extras
from .variant import Rule

MOST_TOKENS = 2**15
"""Beyond, the whole score matrix has no place in a machine's memory."""


class Softmax(NamedTuple):
    """weights (B, H, T, T) and log-sum-exp (B, H, T) of the visible scores; slope: what a scaled
    score changes by as the product does, (B, H, T, T), or None where that is 1."""

    weights: Tensor
    lse: Tensor
    slope: Tensor | None


def forward(q: Tensor, k: Tensor, v: Tensor, extras: Extras, rule: Rule) -> tuple[Tensor, Tensor]:
    """o (B, T, H, E) and lse (B, H, T), in float32 at least."""
    weights, lse, _ = _softmax(q, k, extras, rule)
    o = reference.grouped_matmul(weights.to(v.dtype), v.transpose(1, 2))
    return o.transpose(1, 2).contiguous(), lse


def backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extras: Extras,
    rule: Rule,
) -> tuple[Tensor, ...]:
    """dq, dk, dv, and the gradients of score and sink_logits, empty where there are none."""
    p, lse, slope = _softmax(q, k, extras, rule)
    q_, k_, v_, do_ = (x.transpose(1, 2).to(p.dtype) for x in (q, k, v, do))
    groups = k_.shape[1]
    dp = reference.grouped_matmul(do_, v_.transpose(-1, -2))
    delta = (p * dp).sum(-1)
    if dlse is not None:
        delta = delta - dlse
    ds = p * (dp - delta[..., None]) * rule.scale
    if slope is not None:
        ds = ds * slope
    dq = reference.grouped_matmul(ds, k_)
    dk = reference.group_sum(ds.transpose(-1, -2) @ q_, groups)
    dv = reference.group_sum(p.transpose(-1, -2) @ do_, groups)
    dscore, dsinks = _beside(q, v_, dv, delta, lse, extras)
    grads = (x.transpose(1, 2).to(q.dtype).contiguous() for x in (dq, dk, dv))
    return *grads, dscore, dsinks


def _beside(
    q: Tensor, v: Tensor, dv: Tensor, delta: Tensor, lse: Tensor, extras: Extras
) -> tuple[Tensor, Tensor]:
    """Gradients of score (B, G, T) and sink_logits (H,). v, dv: (B, G, T, E)."""
    dscore, dsinks = q.new_empty(0), q.new_empty(0)
    if extras.score is not None:
        dscore = (dv * v).sum(-1).to(extras.score.dtype)
    if extras.sink_logits is not None:
        share = torch.exp(extras.sink_logits.to(lse.dtype)[:, None] - lse)
        dsinks = -(share * delta).sum((0, 2)).to(extras.sink_logits.dtype)
    return dscore, dsinks


def _softmax(q: Tensor, k: Tensor, extras: Extras, rule: Rule) -> Softmax:
    tokens, groups = q.shape[1], k.shape[2]
    if tokens > MOST_TOKENS:
        raise ValueError(
            f"{tokens} tokens of {q.dtype} on {q.device} go by the whole score matrix, which holds "
            f"{MOST_TOKENS} at most: use float32, bfloat16 or float16 on a CUDA device"
        )
    rows, columns = q.transpose(1, 2), k.transpose(1, 2)
    place, start = _places(tokens, extras.cu_seqlens, q.device)
    seen = _visible(place, start, extras.death, rule)
    bias = None
    if extras.slopes is not None:
        slopes = extras.slopes.to(torch.promote_types(q.dtype, torch.float32))
        bias = reference.alibi_bias(slopes, place[:, None], place)
    cap, sinks = rule.softcap, extras.sink_logits
    weights = reference.attention_weights(rows, columns, seen, rule.scale, cap, sinks, bias)
    scores = reference.grouped_matmul(rows * rule.scale, columns.transpose(-1, -2))
    scores, slope = scores.to(weights.dtype), None
    if cap is not None:
        bent = torch.tanh(scores / cap)
        scores, slope = cap * bent, 1 - bent * bent
    if bias is not None:
        scores = scores + bias
    repeat = 1 if seen.shape[1] == 1 else q.shape[2] // groups
    lse = scores.masked_fill(~seen.repeat_interleave(repeat, dim=1), -torch.inf).logsumexp(-1)
    if sinks is not None:
        lse = torch.logaddexp(lse, sinks.to(lse.dtype)[:, None])
    return Softmax(weights, lse, slope)


def _places(tokens: int, cu_seqlens: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Position of each token in its sequence, and the start of that: (T,) both."""
    index = torch.arange(tokens, device=device)
    if cu_seqlens is None:
        return index, torch.zeros_like(index)
    edges = cu_seqlens.to(index.dtype)
    start = edges[torch.searchsorted(edges, index, right=True) - 1]
    return index - start, start


def _visible(place: Tensor, start: Tensor, death: Tensor | None, rule: Rule) -> Tensor:
    """(1, 1, T, T), or (B, G, T, T) where each KV head has keys of its own."""
    t, j = place.view(1, 1, -1, 1), place.view(1, 1, 1, -1)
    seen = reference.see_past(t, j) & (start.view(-1, 1) == start)
    if death is not None:  # counted on the token axis
        return seen & ((t + start.view(-1, 1)) < death[:, :, None, :])
    if rule.window is None:
        return seen
    near = reference.see_window(t, j, rule.window)
    if rule.rate != 1:
        near = near & reference.see_strided(t, j, rule.rate)
    near = near | reference.see_sinks(t, j, rule.sinks)
    return seen & (near | reference.see_strided(t, j, rule.strided) if rule.strided else near)
