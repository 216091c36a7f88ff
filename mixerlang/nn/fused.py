"""Attention through kernels: one op per branch, on the call's own layout, without padding.

Shapes: q (B, T, H, D), k (B, T, G, D), v (B, T, G, E), z (B, G, T); outputs (B, T, H, E).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..kernels.attention.intervals import Intervals
from ..kernels.attention.op import attention
from ..kernels.eviction.op import intervals
from .call import Call
from .route import Route

BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""PyTorch's own kernels, the fastest first."""


class Fused(NamedTuple):
    """out: (B, T, H, E). Of what evicts also z, the scores of the tokens, and their intervals."""

    out: Tensor
    z: Tensor | None = None
    intervals: Intervals | None = None


def over_reach(call: Call, route: Route) -> Fused:
    """Attention over keys that positions alone choose."""
    if route.op == "sdpa" and call.cu_seqlens is None and sdpa_fits(call):
        return Fused(sdpa(call.q, call.k, call.v, call.rule.scale))
    assert route.reach is not None
    reach = route.reach
    out = attention(
        call.q,
        call.k,
        call.v,
        window=reach.window,
        sinks=reach.sinks,
        rate=reach.rate,
        strided=reach.strided,
        **call.softmax,
        cu_seqlens=call.cu_seqlens,
    )
    return Fused(out)


def over_intervals(
    call: Call,
    z: Tensor,
    *,
    window: int,
    budget: int | None,
    sinks: int,
    floor: float,
    score: Tensor | None = None,
) -> Fused:
    """Attention over a window and the kept tokens that z chooses.

    budget None: every candidate stays. score (B, G, T): what gets the straight-through gradient.
    """
    starts = call.cu_seqlens
    kept = intervals(
        z.detach().contiguous(),
        window=window,
        budget=budget,
        sinks=sinks,
        floor=floor,
        cu_seqlens=starts,
    )
    out = attention(
        call.q,
        call.k,
        call.v,
        window=window,
        intervals=kept,
        score=score,
        **call.softmax,
        cu_seqlens=starts,
    )
    return Fused(out, z, kept)


def sdpa_fits(call: Call) -> bool:
    """Whether PyTorch has a kernel for these heads that never holds the whole score matrix."""
    half = call.q.dtype in (torch.bfloat16, torch.float16)
    same = call.q.shape[-1] == call.v.shape[-1]
    grouped = call.q.shape[2] != call.k.shape[2]
    return same and call.q.shape[-1] % 8 == 0 and (half or not grouped)


def sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention (B, T, H, E) of T queries, the last of k (B, S, G, D) and v (B, S, G, E)."""
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.shape[2] == k.shape[2]:
        with sdpa_kernel(BACKENDS, set_priority=True):
            out = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
            )
    else:
        from torch.nn.attention.bias import causal_lower_right  # takes torch._dynamo along, 2 s

        share = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(share, dim=1) for x in (k, v))
        past = causal_lower_right(q.shape[2], k.shape[2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=past, scale=scale)
    return out.transpose(1, 2)
