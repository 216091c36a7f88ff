"""The new tokens of a call as attention heads, in the layout of the call itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .chunk import Chunk, SoftmaxRule, some
from .mixer import Context
from .sequences import Sequences


@dataclass(frozen=True)
class Call:
    """q: (B, T, H, D); k, raw_k: (B, T, G, D), with and without positions; v: (B, T, G, E).

    raw_k: None where no branch reads it. rule: of the softmax. context: of the attention layer.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    raw_k: Tensor | None
    rule: SoftmaxRule
    context: Context

    @property
    def sequences(self) -> Sequences:
        return self.context.sequences

    @property
    def cu_seqlens(self) -> Tensor | None:
        return self.sequences.cu_seqlens

    @property
    def cached(self) -> bool:
        return self.context.cache is not None

    @property
    def softmax(self) -> dict[str, Any]:
        """The rule as arguments of the ops."""
        rule = self.rule
        return {
            "scale": rule.scale,
            "softcap": rule.softcap,
            "sink_logits": rule.sink_logits,
            "slopes": rule.slopes,
        }

    def of_heads(self, query: tuple[int, ...], kv: tuple[int, ...]) -> Call:
        """The call of some query heads and the KV heads that they read."""
        return replace(
            self,
            q=some(self.q, query, 2),
            k=some(self.k, kv, 2),
            v=some(self.v, kv, 2),
            raw_k=None if self.raw_k is None else some(self.raw_k, kv, 2),
            rule=self.rule.of_heads(query),
        )

    def tokens(self, start: int, end: int) -> Call:
        """The call of some of its tokens; where these stand is for the caller to say."""
        raw_k = None if self.raw_k is None else self.raw_k[:, start:end]
        q, k, v = (x[:, start:end] for x in (self.q, self.k, self.v))
        return replace(self, q=q, k=k, v=v, raw_k=raw_k)

    def child(self, *names: str) -> Call:
        """The call as the submodule `names` has it."""
        context = self.context
        for name in names:
            context = context.child(name)
        return Call(self.q, self.k, self.v, self.raw_k, self.rule, context)

    def padded(self) -> tuple[Chunk, Tensor, Tensor]:
        """For plain PyTorch: the chunk, k (N, G, T, D) and v (N, G, T, E), each sequence a row."""
        pad = self.sequences.pad
        q, k, v = (pad(x).transpose(1, 2) for x in (self.q, self.k, self.v))
        raw_k = k if self.raw_k is None else pad(self.raw_k).transpose(1, 2)
        cache = self.context.cache
        seen = 0 if cache is None else cache.longest
        return Chunk(q, raw_k, self.rule, seen, self.context), k, v

    def packed(self, out: Tensor) -> Tensor:
        """(N, H, T, E) of the padded rows to (B, T, H, E)."""
        return self.sequences.pack(out.transpose(1, 2))

    def rows(self, x: Tensor) -> Tensor:
        """(B, G, T) per token of the call to (N, G, length), 0 where there is none."""
        return self.sequences.pad(x.transpose(1, 2)).transpose(1, 2)


def joined(parts: list[Tensor], heads: list[tuple[int, ...]]) -> Tensor:
    """Heads of groups (B, T, some, E) back in their order: (B, T, H, E)."""
    if len(parts) == 1:
        return parts[0]
    places = {head: (part, at) for part, own in enumerate(heads) for at, head in enumerate(own)}
    columns = (places[head] for head in sorted(places))
    return torch.stack([parts[part][:, :, at] for part, at in columns], dim=2)
