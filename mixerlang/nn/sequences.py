"""Where the tokens of one call stand in their sequences.

A call brings (B, T): B sequences of T new tokens each; or, packed, (1, total) with `cu_seqlens`
(N + 1): N sequences end to end, of any lengths. Mixers work on the padded view (N, length) of
either, in which sequence n has `counts[n]` new tokens from position `offsets[n]` on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """counts, offsets: (N,) int64, new tokens of each sequence and tokens seen before them.
    length: the largest count. index: (N, length) int64 into the packed tokens, or None where the
    call was not packed (then every count is `length`)."""

    counts: Tensor
    offsets: Tensor
    length: int
    index: Tensor | None = None

    @classmethod
    def of(
        cls, tokens: Tensor, cu_seqlens: Tensor | None = None, seen: Tensor | None = None
    ) -> Sequences:
        """tokens: (B, T, ...); cu_seqlens: (N + 1,) from 0 to T, with B = 1; seen: (N,)."""
        batch, length = tokens.shape[:2]
        device = tokens.device
        if cu_seqlens is None:
            counts = torch.full((batch,), length, dtype=torch.int64, device=device)
            index = None
        else:
            starts = _checked(cu_seqlens, batch, length).to(device)
            counts = starts.diff()
            length = int(counts.max())
            index = starts[:-1, None] + torch.arange(length, device=device)
            index = index.clamp_(max=max(0, tokens.shape[1] - 1))
        offsets = torch.zeros_like(counts) if seen is None else seen.to(device)
        if len(offsets) != len(counts):
            raise ValueError(
                f"the cache holds {len(offsets)} sequences and the call brings {len(counts)}"
            )
        return cls(counts, offsets, length, index)

    @property
    def batch(self) -> int:
        """Number of sequences N."""
        return len(self.counts)

    @property
    def positions(self) -> Tensor:
        """(N, length) int64: position of each token in its sequence."""
        return self.offsets[:, None] + torch.arange(self.length, device=self.counts.device)

    @property
    def valid(self) -> Tensor:
        """(N, length) bool: false where the padded view holds no token."""
        return torch.arange(self.length, device=self.counts.device) < self.counts[:, None]

    def pad(self, x: Tensor) -> Tensor:
        """(B, T, ...) to (N, length, ...), zero where there is no token."""
        if self.index is None:
            return x
        padded = x[0, self.index]
        valid = self.valid.view(*self.index.shape, *[1] * (x.dim() - 2))
        return padded.masked_fill(~valid, 0)

    def pack(self, x: Tensor) -> Tensor:
        """(N, length, ...) back to the layout of the call."""
        if self.index is None:
            return x
        return x[self.valid].unsqueeze(0)


def _checked(cu_seqlens: Tensor, batch: int, length: int) -> Tensor:
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens must be int32 or int64, not {cu_seqlens.dtype}")
    starts = cu_seqlens.to(torch.int64)
    if batch != 1 or starts.dim() != 1 or len(starts) < 2:
        raise ValueError("cu_seqlens (N + 1,) goes with tokens of shape (1, total)")
    if int(starts[0]) != 0 or int(starts[-1]) != length or bool((starts.diff() < 1).any()):
        raise ValueError(f"cu_seqlens must rise from 0 to {length} by at least 1 a sequence")
    return starts
