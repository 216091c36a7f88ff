"""The new tokens of a call as attention heads, and how their scores become weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.attention import reference
from .mixer import Context
from .sequences import Sequences
from .store import Tokens


@dataclass(frozen=True)
class SoftmaxRule:
    """How a score becomes a weight: softmax(cap(q . k * scale) + bias), with sink logits.

    sink_logits and slopes (of ALiBi): (H,), or None.
    """

    scale: float
    softcap: float | None = None
    sink_logits: Tensor | None = None
    slopes: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether it is the softmax of scaled_dot_product_attention."""
        return self.softcap is None and self.sink_logits is None and self.slopes is None

    def of_heads(self, heads: tuple[int, ...]) -> SoftmaxRule:
        """The rule of some query heads."""
        sinks, slopes = self.sink_logits, self.slopes
        return replace(
            self,
            sink_logits=None if sinks is None else some(sinks, heads, 0),
            slopes=None if slopes is None else some(slopes, heads, 0),
        )

    def weights(self, q: Tensor, k: Tensor, t: Tensor, j: Tensor, visible: Tensor) -> Tensor:
        """(N, H, Q, K) from q (N, H, Q, D), k (N, G, K, D), t (N, 1, Q, 1), j (N, P, 1, K)."""
        bias = None
        if self.slopes is not None:
            spread = q.shape[1] // j.shape[1] if j.shape[1] > 1 else 1
            bias = reference.alibi_bias(self.slopes, t, j.repeat_interleave(spread, dim=1))
        return reference.attention_weights(
            q, k, visible, self.scale, self.softcap, self.sink_logits, bias
        )


@dataclass(frozen=True)
class Chunk:
    """The new tokens of a call. q: (N, H, T, D); raw_k: (N, G, T, D), keys before positions.

    rule: of the softmax. seen: the largest number of tokens that a sequence had before. context:
    of the attention layer; its cache says whether later calls will see these tokens.
    """

    q: Tensor
    raw_k: Tensor
    rule: SoftmaxRule
    seen: int
    context: Context

    @property
    def sequences(self) -> Sequences:
        return self.context.sequences

    @property
    def cached(self) -> bool:
        return self.context.cache is not None

    @property
    def t(self) -> Tensor:
        """(N, 1, T, 1): positions of the queries."""
        return self.sequences.positions[:, None, :, None]

    @property
    def next(self) -> Tensor:
        """(N, 1, 1): position of the first token that is still to come."""
        return (self.sequences.offsets + self.sequences.counts)[:, None, None]

    @property
    def horizon(self) -> int:
        """No sequence is longer than this."""
        return self.seen + self.sequences.length

    def past(self, keys: Tokens) -> Tensor:
        """(N, P, T, S) bool: which keys are there and not in the future."""
        return reference.see_past(self.t, keys.positions.unsqueeze(-2))

    def weights(self, keys: Tokens, visible: Tensor) -> Tensor:
        """Attention weights (N, H, T, S) over the visible keys."""
        return self.rule.weights(self.q, keys.k, self.t, keys.positions.unsqueeze(-2), visible)

    def attend(self, keys: Tokens, visible: Tensor) -> Tensor:
        """Attention over the visible keys: (N, H, T, E)."""
        return weighted(self.weights(keys, visible), keys.v)

    def attend_all(self, keys: Tokens) -> Tensor:
        """Attention over all keys of the past, by PyTorch's own kernels where these fit."""
        if self.rule.plain and keys.slots == self.sequences.length:
            # The keys are the new tokens: padding comes after every query that counts.
            grouped = self.q.shape[1] != keys.k.shape[1]
            return F.scaled_dot_product_attention(
                self.q, keys.k, keys.v, is_causal=True, scale=self.rule.scale, enable_gqa=grouped
            )
        return self.attend(keys, self.past(keys))


def some(x: Tensor, heads: tuple[int, ...], dim: int) -> Tensor:
    """Some heads of x. By slices: a list of indices would first be copied to the device."""
    first, last = heads[0], heads[-1]
    if heads == tuple(range(first, last + 1)):
        return x.narrow(dim, first, len(heads))
    return torch.cat([x.narrow(dim, head, 1) for head in heads], dim)


def weighted(weights: Tensor, v: Tensor) -> Tensor:
    """sum_j weights[t, j] v[j]: (N, H, T, E) from (N, H, T, S) and (N, G, S, E)."""
    return reference.grouped_matmul(weights.to(v.dtype), v)


def new_tokens(k: Tensor, v: Tensor, sequences: Sequences, spread: int, names: list[str]) -> Tokens:
    """The new tokens of a call as slots, k (N, G, T, D) and v (N, G, T, E), with scores of 0."""
    positions = sequences.positions.masked_fill(~sequences.valid, -1)[:, None]
    positions = positions.expand(-1, spread, -1)
    score = torch.zeros(
        positions.shape, dtype=torch.promote_types(k.dtype, torch.float32), device=k.device
    )
    return Tokens(k, v, positions, dict.fromkeys(names, score))
