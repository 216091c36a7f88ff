"""The convolution and what follows it in plain PyTorch: what runs where Triton does not.

Shapes as in kernels.py. Gradients are written out, as an op's own backward pass may not
differentiate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .cut import Part

EPSILON = 1e-6


class Places(NamedTuple):
    """(B, T): start, end and number of each token's sequence, and its own place."""

    start: Tensor
    end: Tensor
    number: Tensor
    token: Tensor


def places(x: Tensor, cu_seqlens: Tensor | None) -> Places:
    batch, tokens, _ = x.shape
    token = torch.arange(tokens, device=x.device).expand(batch, -1)
    if cu_seqlens is None:
        number = torch.arange(batch, device=x.device)[:, None].expand(-1, tokens)
        return Places(torch.zeros_like(token), torch.full_like(token, tokens), number, token)
    edges = cu_seqlens.to(torch.int64)
    number = torch.searchsorted(edges, token.contiguous(), right=True) - 1
    return Places(edges[number], edges[number + 1], number, token)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    parts: tuple[Part, ...],
    tail: Tensor | None,
) -> list[Tensor]:
    """y of each part; `tail` is filled where it is given."""
    taps = _taps(x, initial, places(x, cu_seqlens), weight.shape[1])
    z = _convolved(taps, weight, bias)
    if tail is not None and tail.numel():
        tail.copy_(_last(taps[1:], cu_seqlens))
    pieces = torch.split(z, [part.channels for part in parts], dim=-1)
    return [
        _mapped(piece, part)[0].to(x.dtype).contiguous()
        for piece, part in zip(pieces, parts, strict=True)
    ]


def backward(
    gradients: list[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    parts: tuple[Part, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, and the gradients of the weight and the bias in float32 at least."""
    where, kernel = places(x, cu_seqlens), weight.shape[1]
    taps = _taps(x, initial, where, kernel)
    z = _convolved(taps, weight, bias)
    pieces = torch.split(z, [part.channels for part in parts], dim=-1)
    d = torch.cat([_unmapped(*each) for each in zip(gradients, pieces, parts, strict=True)], dim=-1)
    dx = torch.zeros_like(d)
    for k in range(kernel):
        age = kernel - 1 - k
        mine = d * weight[:, k].to(d.dtype) * (where.token - age >= where.start)[..., None]
        dx += F.pad(mine[:, age:], (0, 0, 0, min(age, x.shape[1])))
    dw = torch.stack([(d * tap).sum((0, 1)) for tap in taps], dim=-1)
    return dx.to(x.dtype), dw, d.sum((0, 1))


def _taps(x: Tensor, initial: Tensor | None, where: Places, kernel: int) -> list[Tensor]:
    """Of each token the inputs kernel - 1 to 0 tokens before it: (B, T, C) each, wide."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    found = []
    for age in range(kernel - 1, -1, -1):
        source = where.token - age
        tap = wide.gather(1, source.clamp(min=0)[..., None].expand_as(x))
        tap = tap.masked_fill((source < where.start)[..., None], 0)
        if initial is not None and age:
            row = (kernel - 1 + source - where.start).clamp(0, kernel - 2)
            before = initial[where.number, row].to(wide.dtype)
            tap = torch.where((source < where.start)[..., None], before, tap)
        found.append(tap)
    return found


def _last(taps: list[Tensor], cu_seqlens: Tensor | None) -> Tensor:
    """(N, kernel - 1, C): what the last tokens of sequences leave."""
    if cu_seqlens is None:
        return torch.stack([tap[:, -1] for tap in taps], dim=1)
    return torch.stack([tap[0, cu_seqlens[1:].to(torch.int64) - 1] for tap in taps], dim=1)


def _convolved(taps: list[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    z = sum(tap * weight[:, k].to(tap.dtype) for k, tap in enumerate(taps))
    assert isinstance(z, Tensor)
    return z if bias is None else z + bias.to(z.dtype)


def _mapped(z: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    """What follows the convolution, and the inverse lengths of heads that it was multiplied by."""
    y = F.silu(z) if part.silu else z
    if not part.head_dim:
        return y, y.new_ones(())
    heads = torch.unflatten(y, -1, (-1, part.head_dim))
    scale = (heads.square().sum(-1, keepdim=True) + EPSILON).rsqrt()
    return (heads * scale).flatten(-2), scale


def _unmapped(dy: Tensor, z: Tensor, part: Part) -> Tensor:
    dy = dy.to(z.dtype)
    normed, scale = _mapped(z, part)
    if part.head_dim:
        heads, d = (torch.unflatten(y, -1, (-1, part.head_dim)) for y in (normed, dy))
        dy = ((d - heads * (d * heads).sum(-1, keepdim=True)) * scale).flatten(-2)
    if not part.silu:
        return dy
    share = z.sigmoid()
    return dy * share * (1 + z * (1 - share))
