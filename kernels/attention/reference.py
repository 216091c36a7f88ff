"""Softmax attention over a set of visible keys, in plain PyTorch: the oracle of every kernel.

Shapes: B sequences, H query heads, G key/value heads (H = G * R, query head h reads KV head
h // R), Q queries, K keys, D channels of q and k, E channels of v. `t` holds positions of queries,
`j` positions of keys, -1 where a slot is empty; they broadcast against each other.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attention_weights(
    q: Tensor,
    k: Tensor,
    visible: Tensor,
    scale: float,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax over the visible keys of cap(q . k * scale) + bias, in float32 at least.

    q: (B, H, Q, D); k: (B, G, K, D); visible: (B, G or 1, Q, K) bool; cap(s) is
    softcap * tanh(s / softcap); sink_logits: (H,), a logit that joins each softmax and carries no
    value; bias: broadcasts to (B, H, Q, K). Returns (B, H, Q, K). A row that sees nothing is 0.
    """
    heads, groups = q.shape[1], k.shape[1]
    scores = grouped_matmul(q * scale, k.transpose(-1, -2))
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if visible.shape[1] not in (1, heads):
        visible = visible.repeat_interleave(heads // groups, dim=1)
    # The lowest finite number instead of -inf: rows without a key then have no NaN to propagate.
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if sink_logits is not None:
        sinks = sink_logits.to(scores.dtype).view(-1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : k.shape[2]]
    return weights.masked_fill(~visible, 0)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor,
    scale: float,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """sum_j weights[t, j] v[j]. v: (B, G, K, E); the rest as `attention_weights`.

    Returns (B, H, Q, E); a row that sees nothing is 0.
    """
    weights = attention_weights(q, k, visible, scale, softcap, sink_logits, bias)
    return grouped_matmul(weights.to(v.dtype), v)


def grouped_matmul(rows: Tensor, columns: Tensor) -> Tensor:
    """rows (B, H, Q, X) @ columns (B, G, X, Y), query head h with KV head h // R: (B, H, Q, Y)."""
    batch, heads, queries, inner = rows.shape
    groups, _, width = columns.shape[1:]
    folded = rows.reshape(batch, groups, heads // groups * queries, inner)
    return (folded @ columns).view(batch, heads, queries, width)


def group_sum(x: Tensor, groups: int) -> Tensor:
    """Sum over the query heads of each KV head: (B, H, ...) to (B, G, ...)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]).sum(2)


# ------------------------------------------------------------------------------------ positions


def see_past(t: Tensor, j: Tensor) -> Tensor:
    """What no keep may exceed: filled slots that are not in the future."""
    return (j >= 0) & (j <= t)


def see_window(t: Tensor, j: Tensor, size: int) -> Tensor:
    """t - j < size: the query's own token counts."""
    return j > t - size


def see_sinks(t: Tensor, j: Tensor, count: int) -> Tensor:
    """j < count, the same for every query."""
    return (j < count) & torch.ones_like(t, dtype=torch.bool)


def see_strided(t: Tensor, j: Tensor, stride: int) -> Tensor:
    """(t - j) mod stride = 0."""
    return (t - j) % stride == 0


def see_dilated(t: Tensor, j: Tensor, size: int, rate: int) -> Tensor:
    """The newest `size` of the keys at distances 0, rate, 2 * rate, ..."""
    return see_strided(t, j, rate) & see_window(t, j, size * rate)


def alibi_slopes(heads: int, device: torch.device | None = None) -> Tensor:
    """(H,) float32 geometric slopes, 2^(-8/H) and its powers; between powers of two as ALiBi's
    authors. Made on the device: a copy to it could not be captured in a CUDA graph."""
    power = 1 << (heads.bit_length() - 1)
    head = torch.arange(heads, dtype=torch.float64, device=device)
    between = -4 * (2 * (head - power) + 1)
    exponents = torch.where(head < power, -8 * (head + 1), between) / power
    return torch.exp2(exponents).to(torch.float32)


def alibi_bias(slopes: Tensor, t: Tensor, j: Tensor) -> Tensor:
    """-slope * (t - j): (B, H, Q, K) from slopes (H,), t (B, 1, Q, 1) and j (B, 1, 1, K)."""
    return -slopes.view(-1, 1, 1) * (t - j)


# --------------------------------------------------------------------------------------- blocks


def summary_count(length: Tensor, size: int, stride: int) -> Tensor:
    """Summaries that are complete after `length` tokens: of `size` tokens every `stride`."""
    return ((length - size).div(stride, rounding_mode="floor") + 1).clamp(min=0)


def summary_overlap(ends: Tensor, size: int, block: int, blocks: int) -> Tensor:
    """Which share of a summary lies in each block of `block` tokens.

    ends: (..., S), the position of each summary's last token, -1 for an empty slot.
    Returns (..., S, blocks), float32 in [0, 1].
    """
    first = torch.arange(blocks, device=ends.device) * block
    start = (ends - size + 1)[..., None]
    shared = torch.minimum(ends[..., None] + 1, first + block) - torch.maximum(start, first)
    return shared.clamp(min=0).masked_fill(ends[..., None] < 0, 0).to(torch.float32) / size


def block_scores(weights: Tensor, overlap: Tensor, groups: int) -> Tensor:
    """The probability that falls on each block, summed over the query heads of a KV head.

    weights: (B, H, Q, S) over summaries; overlap: (B, 1, S, blocks). Returns (B, G, Q, blocks).
    Where summaries are shorter than blocks this is equation 9 of NSA (2502.11089), up to scale.
    """
    return group_sum(weights, groups) @ overlap.to(weights.dtype)


def select_blocks(
    scores: Tensor, current: Tensor, top: int, forced_first: int, forced_last: int
) -> Tensor:
    """The `top` blocks of each query, forced ones included; equal scores go to the lower index.

    scores: (B, G, Q, blocks); current: (B, 1, Q, 1), the block of the query. Returns bool.
    """
    index = torch.arange(scores.shape[-1], device=scores.device)
    reachable = index <= current
    forced = (index < forced_first) | (index > current - forced_last)
    ranked = scores.masked_fill(forced, torch.inf).masked_fill(~reachable, -torch.inf)
    best = ranked.argsort(dim=-1, descending=True, stable=True)[..., :top]
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(-1, best, True) & reachable


def see_blocks(selected: Tensor, j: Tensor, size: int) -> Tensor:
    """What is said of a key's block, for each key: (B, G, Q, K).

    selected: (B, G, Q, blocks) bool, or numbers; j: (B, G or 1, 1, K).
    """
    block = j.clamp(min=0) // size
    return selected.gather(-1, block.expand(*selected.shape[:-1], j.shape[-1]))


def straight_through_blocks(weights: Tensor, scores: Tensor, j: Tensor, size: int) -> Tensor:
    """weights, with a gradient for the scores that chose the blocks.

    weights: (B, H, Q, K); scores: (B, G, Q, blocks); j: (B, G or 1, 1, K). The weight on a key
    counts as if multiplied by 1 + score of its block, less the same detached.
    """
    gain = see_blocks(scores - scores.detach(), j, size)
    return weights + weights * gain.repeat_interleave(weights.shape[1] // gain.shape[1], dim=1)


# ------------------------------------------------------------------------ learned token eviction


def straight_through(v: Tensor, score: Tensor) -> Tensor:
    """v, with a gradient for the score that decides whether v is kept.

    v: (B, G, K, E); score: (B, G, K). d/dv is the identity, d/dscore[j] = <dL/dv[j], v[j]>.
    """
    return v + v.detach() * (score - score.detach()).unsqueeze(-1).to(v.dtype)
