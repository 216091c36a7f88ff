"""Launch the rendered attention kernels on tensors.

Shapes: B sequences (1 if packed), T tokens, H query heads, G KV heads, D channels of q and k, E of
v. q (B, T, H, D), k (B, T, G, D), v (B, T, G, E), any strides as long as channels are adjacent;
o and do (B, T, H, E); lse and delta (B, H, T) float32.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from .. import loader
from . import render
from .tiles import choose
from .variant import Tile, Variant


class Bounds(NamedTuple):
    """Where each token's sequence starts and ends on the token axis: (T,) int32 both."""

    starts: Tensor
    ends: Tensor


def bounds(cu_seqlens: Tensor, tokens: int) -> Bounds:
    """cu_seqlens: (N + 1,) integers from 0 to `tokens`. Does not wait for the device."""
    edges = cu_seqlens.to(torch.int32)
    position = torch.arange(tokens, device=edges.device, dtype=torch.int32)
    index = torch.searchsorted(edges, position, right=True)
    return Bounds(edges[index - 1], edges[index])


@cache
def kernel(name: str, variant: Variant, tile: Tile) -> ModuleType:
    """One pass's rendered module."""
    return loader.load(render.file_stem(name, variant), render.render(name, variant, tile))


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variant: Variant,
    packing: Bounds | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """o (B, T, H, E) and lse."""
    q, k, v = map(adjacent, (q, k, v))
    batch, tokens, heads, _ = q.shape
    o = q.new_empty(batch, tokens, heads, variant.value_dim)
    lse = q.new_empty(batch, heads, tokens, dtype=torch.float32)
    module = kernel("forward", variant, tile or choose("forward", variant, architecture(q)))
    module.attention_forward[grid(module.BLOCK_Q, tokens, heads, batch)](
        *(q, k, v, o, lse),
        *(packing.starts,) if packing else (),
        *strides(q, k, v, o),
        tokens,
        **module.OPTIONS,
    )
    return o, lse


def backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    dlse: Tensor | None,
    variant: Variant,
    packing: Bounds | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv, contiguous, from the gradients of o and (variant.lse_grad) lse."""
    do, q, k, v = map(adjacent, (do, q, k, v))
    dq, delta = backward_q(do, q, k, v, o, lse, dlse, variant, packing)
    dk, dv = backward_kv(do, q, k, v, lse, delta, variant, packing)
    return dq, dk, dv


def backward_q(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    dlse: Tensor | None,
    variant: Variant,
    packing: Bounds | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """dq, and delta = <o, do> less the gradient of lse."""
    batch, tokens, heads, _ = q.shape
    dq = q.new_empty(q.shape)
    delta = torch.empty_like(lse)
    module = kernel("backward_q", variant, tile or choose("backward_q", variant, architecture(q)))
    module.attention_backward_q[grid(module.BLOCK_Q, tokens, heads, batch)](
        *(q, k, v, o, do, lse),
        *(dlse.contiguous(),) if dlse is not None else (),
        *(dq, delta),
        *(packing.starts,) if packing else (),
        *strides(q, k, v, o, do, dq),
        tokens,
        **module.OPTIONS,
    )
    return dq, delta


def backward_kv(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    delta: Tensor,
    variant: Variant,
    packing: Bounds | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """dk and dv; `delta` comes from backward_q."""
    batch, tokens, kv_heads, _ = k.shape
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    module = kernel("backward_kv", variant, tile or choose("backward_kv", variant, architecture(q)))
    module.attention_backward_kv[grid(module.BLOCK_K, tokens, kv_heads, batch)](
        *(q, k, v, do, lse, delta, dk, dv),
        *(packing if packing else ()),
        *strides(q, k, v, do, dk, dv),
        tokens,
        **module.OPTIONS,
    )
    return dk, dv


def grid(block: int, tokens: int, heads: int, batch: int) -> tuple[int, int]:
    """Programs of one pass: blocks of tokens times heads, then sequences."""
    return -(-tokens // block) * heads, batch


def strides(*tensors: Tensor) -> list[int]:
    """Of batch, token and head, tensor by tensor."""
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def architecture(x: Tensor) -> str:
    """Which column of the tile table serves x's device: sm_90 from Hopper on."""
    if x.device.type != "cuda":
        return "sm_90"
    return "sm_90" if _capability(x.device.index or 0) >= (9, 0) else "sm_80"


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)
