"""What a recurrence layer keeps between steps, and how a prefill leaves it.

Shapes: N sequences, A value heads, K and V channels of a head of the state; R = rule.ring entries.

    S (N, A, K, V), z (N, A, K)   after the first `committed` (N, A) tokens
    q, k, v, a, b (N, R, width)   what each of the last R tokens brought, token t in entry t mod R:
                                  rows of the projections, before the convolution
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .step_rule import StepRule

State = dict[str, Tensor]
Inputs = dict[str, Tensor]
"""Rows (N, T, width) by name, as in StepRule.widths; `gate` (N, T, A * V) where there is one."""


class Weights(NamedTuple):
    """conv (channels of q, k and v, taps); decay: the log of the fixed decay (A,), or A_log (A,) or
    (H,); bias: dt_bias, like a; skip: D (A,); norm (V,). None where the rule has no use for it."""

    conv: Tensor | None = None
    decay: Tensor | None = None
    bias: Tensor | None = None
    skip: Tensor | None = None
    norm: Tensor | None = None


def new_state(
    rule: StepRule,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    state_dtype: torch.dtype = torch.float32,
) -> State:
    """Of sequences without a token. state_dtype: of S and z."""
    heads, keys = rule.value_heads, rule.key_dim
    wide = torch.float64 if dtype == torch.float64 else state_dtype
    state = {
        "S": torch.zeros(batch, heads, keys, rule.value_dim, dtype=wide, device=device),
        "committed": torch.zeros(batch, heads, dtype=torch.int64, device=device),
    }
    if rule.normalize:
        state["z"] = torch.zeros(batch, heads, keys, dtype=wide, device=device)
    for name, width in rule.kept.items():
        state[name] = torch.zeros(batch, rule.ring, width, dtype=dtype, device=device)
    return state


def tail(rule: StepRule, state: State, seen: Tensor) -> Tensor | None:
    """(N, conv - 1, channels of q, k and v): what the convolution reads before the next token."""
    if rule.conv < 2:
        return None
    tokens = seen[:, None] - torch.arange(rule.conv - 1, 0, -1, device=seen.device)
    rows = torch.arange(len(seen), device=seen.device)[:, None]
    parts = [state[name][rows, tokens % rule.ring] for name in "qkv" if name in rule.kept]
    return torch.cat(parts, dim=-1).masked_fill((tokens < 0)[..., None], 0)


def fill(
    rule: StepRule,
    state: State,
    inputs: Inputs,
    S: Tensor,
    z: Tensor | None,
    *,
    seen: Tensor,
    cu_seqlens: Tensor | None = None,
) -> None:
    """After a prefill: S and z after its tokens, and the inputs of the last ones.

    inputs: rows of its tokens, (N, T, width) or packed (1, T, width); seen (N,): the tokens of each
    sequence with those of the prefill.
    """
    state["S"].copy_(S)
    state["committed"].copy_(seen[:, None].expand_as(state["committed"]))
    if z is not None:
        state["z"].copy_(z)
    rows, tokens, device = len(seen), next(iter(inputs.values())).shape[1], seen.device
    back = torch.arange(rule.ring, 0, -1, device=device)  # of the last token 1
    if cu_seqlens is None:
        counts = torch.full_like(seen, tokens)
        source = torch.arange(rows, device=device)[:, None] * tokens + tokens - back
    else:
        ends = cu_seqlens[1:].to(seen.dtype)
        counts = ends - cu_seqlens[:-1]
        source = ends[:, None] - back
    fresh = (back <= counts[:, None])[..., None]
    entries = ((seen[:, None] - back) % rule.ring)[..., None]
    for name in rule.kept:
        ring = state[name]
        new = inputs[name].flatten(0, 1)[source.clamp(min=0)].to(ring.dtype)
        places = entries.expand_as(ring)
        ring.scatter_(1, places, torch.where(fresh, new, ring.gather(1, places)))
