"""The scorer from its definition: exact, slow, in any floating dtype.

Shapes: B sequences (1 if packed), G KV heads, T tokens, C channels of a layer's input, O of its
output. Each layer's input is zero outside the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DROPOUT_STEPS = 2**16
"""Dropout probabilities are multiples of 1 / DROPOUT_STEPS."""


def logits(
    k: Tensor,
    v: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dilations: Sequence[int],
    *,
    dropped: int = 0,
    seed: int = 0,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """One logit per token and KV head: (B, G, T).

    k (B, T, G, D), v (B, T, G, E); weights (G * O, C, taps), biases (G * O,) of each convolution,
    of the projection at last; dropped: of DROPOUT_STEPS inputs of a layer.
    """
    x = torch.cat([k, v], dim=-1).transpose(1, 2)
    batch, heads, tokens, _ = x.shape
    start, end = bounds(tokens, cu_seqlens, x.device)
    for layer, dilation in enumerate(dilations):
        if dropped:
            keep = kept(seed, layer, (batch, heads, tokens, x.shape[-1]), dropped, x.device)
            x = x * keep / (1 - dropped / DROPOUT_STEPS)
        x = convolve(x, by_head(weights[layer], heads), dilation, start, end)
        x = torch.nn.functional.silu(x + biases[layer].view(heads, 1, -1))
    projection = by_head(weights[-1], heads)[..., 0]
    return torch.einsum("bgtc,goc->bgt", x, projection) + biases[-1].view(heads, 1)


def by_head(weights: Tensor, heads: int) -> Tensor:
    """(G * O, C, taps) as (G, O, C, taps)."""
    return weights.view(heads, -1, *weights.shape[1:])


def bounds(tokens: int, cu_seqlens: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each token's sequence starts and ends: (T,) int64 both."""
    index = torch.arange(tokens, device=device)
    if cu_seqlens is None:
        return torch.zeros_like(index), torch.full_like(index, tokens)
    edges = cu_seqlens.to(device, torch.int64)
    sequence = torch.searchsorted(edges, index, right=True)
    return edges[sequence - 1], edges[sequence]


def convolve(x: Tensor, weights: Tensor, dilation: int, start: Tensor, end: Tensor) -> Tensor:
    """x (B, G, T, C), weights (G, O, C, taps): (B, G, T, O)."""
    taps = weights.shape[-1]
    out = x.new_zeros(*x.shape[:-1], weights.shape[1])
    for tap in range(taps):
        there = shifted(x, (tap - taps // 2) * dilation, start, end)
        out = out + torch.einsum("bgtc,goc->bgto", there, weights[..., tap])
    return out


def shifted(x: Tensor, shift: int, start: Tensor, end: Tensor) -> Tensor:
    """Row t is x's row t + shift of the same sequence, or zero: (B, G, T, C)."""
    index = torch.arange(len(start), device=x.device) + shift
    inside = (index >= start) & (index < end)
    return x[:, :, index.clamp(0, len(start) - 1)] * inside[:, None]


# -------------------------------------------------------------------------------------- dropout


def kept(
    seed: int | Tensor, layer: int, shape: tuple[int, ...], dropped: int, device: torch.device
) -> Tensor:
    """Which inputs of a layer stay: (B, G, T, C) bool, from counters alone.

    A stream of 32-bit numbers per layer and (sequence, head) starts at a hash of the seed; each
    token's part of it at a hash of its place, and one number serves two neighbouring channels.
    """
    batch, heads, tokens, channels = shape
    seed = torch.as_tensor(seed, dtype=torch.int64, device=device).reshape(())
    lane = torch.arange(batch * heads, device=device).view(batch, heads, 1, 1)
    key = mix(mix(seed & MASK) + ((seed >> 32) & MASK))
    key = mix(mix(key + layer) + lane)
    row = mix(key + torch.arange(tokens, device=device).view(-1, 1))
    c = torch.arange(channels, device=device)
    x = product(row + product(c >> 1, 0x9E3779B9), 0x7FEB352D)
    x = product(x ^ (x >> 15), 0x846CA68B)
    x = x ^ (x >> 16)
    return torch.where(c & 1 == 0, x & 0xFFFF, x >> 16) >= dropped


MASK = 2**32 - 1


def mix(x: Tensor) -> Tensor:
    """A 32-bit integer hash (lowbias32) of x modulo 2^32, in int64."""
    x = x & MASK
    x = product(x ^ (x >> 16), 0x7FEB352D)
    x = product(x ^ (x >> 15), 0x846CA68B)
    return x ^ (x >> 16)


def product(x: Tensor, factor: int) -> Tensor:
    """x * factor modulo 2^32, for x of less than 2^34: by halves, as int64 would overflow."""
    x = x & MASK
    return (x * (factor & 0xFFFF) + (((x * (factor >> 16)) & 0xFFFF) << 16)) & MASK
