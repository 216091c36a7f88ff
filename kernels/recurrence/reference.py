"""The recurrence token by token, as it is written: the oracle, and the step of decoding."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-10
"""Added to z . q, so that a token whose q is zero divides by something."""


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    b: Tensor | None = None,
    state: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta: bool = False,
    normalize: bool = False,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """o_t = scale * S_t^T q_t, where S, from `state` on, goes for each token

        S = exp(g) * S
        S += b k v^T, or with delta b k (v - S^T k)^T

    and with `normalize` o_t is divided by scale * z_t . q_t, where z = exp(g) * z + b k.

    q, k (N, T, H, K). v (N, T, A, V): A is a multiple of H, and value heads next to each other
    share a head of q and k. g, the log of the decay, at most 0: None for none, (N, T, A) for one
    per value head, (N, T, H, K) for one per key channel. b (N, T, A), None for 1. state
    (N, A, K, V) and z (N, A, K), None for zero.

    Returns o (N, T, A, V) in the dtype of v, and state and z after the last token in float32
    (float64 for float64 inputs); z is None without `normalize`.
    """
    dtype = torch.promote_types(v.dtype, torch.float32)
    batch, tokens, heads, key_dim = k.shape
    value_heads, value_dim = v.shape[2:]
    group = value_heads // heads

    def per_value_head(x: Tensor) -> Tensor:
        return x.to(dtype).repeat_interleave(group, dim=2)

    q, k = per_value_head(q) * scale, per_value_head(k)
    step = torch.ones_like(v[..., 0], dtype=dtype) if b is None else b.to(dtype)
    decay = torch.ones_like(step) if g is None else g.to(dtype).exp()
    decay = decay[..., None] if decay.dim() == 3 else per_value_head(decay)
    S = k.new_zeros(batch, value_heads, key_dim, value_dim) if state is None else state.to(dtype)
    total = k.new_zeros(batch, value_heads, key_dim) if z is None else z.to(dtype)

    outputs = []
    for t in range(tokens):
        S = decay[:, t, :, :, None] * S
        written = v[:, t].to(dtype)
        if delta:
            written = written - torch.einsum("nhkv,nhk->nhv", S, k[:, t])
        key = step[:, t, :, None] * k[:, t]
        S = S + key[..., None] * written[..., None, :]
        o = torch.einsum("nhkv,nhk->nhv", S, q[:, t])
        if normalize:
            total = decay[:, t] * total + key
            o = o / ((total * q[:, t]).sum(-1, keepdim=True) + EPSILON)
        outputs.append(o)
    output = torch.stack(outputs, dim=1) if outputs else torch.empty_like(v)
    return output.to(v.dtype), S, total if normalize else None
