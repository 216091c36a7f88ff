"""Where the tokens of one call stand in their sequences.

A call brings (B, T): B sequences of T new tokens each; or, packed, (1, total) with `cu_seqlens`
(N + 1): N sequences end to end, of any lengths. Kernels take either as it is; layers in plain
PyTorch work on the padded view (N, length) of either, in which sequence n has `counts[n]` new
tokens from position `offsets[n]` on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(eq=False)
class Sequences:
    """counts, offsets: (N,) int64, new tokens of each sequence and tokens seen before them.
    cu_seqlens: (N + 1,) int64 where the call is packed; else None, and every count is `length`."""

    counts: Tensor
    offsets: Tensor
    _length: int | None
    cu_seqlens: Tensor | None = None
    total: int = 0
    _index: Tensor | None = None
    _places: Tensor | None = None

    @classmethod
    def of(
        cls, tokens: Tensor, cu_seqlens: Tensor | None = None, seen: Tensor | None = None
    ) -> Sequences:
        """tokens: (B, T, ...); cu_seqlens: (N + 1,) from 0 to T, with B = 1; seen: (N,)."""
        batch, total = tokens.shape[:2]
        device = tokens.device
        length: int | None = total
        if cu_seqlens is None:
            starts = None
            counts = torch.full((batch,), total, dtype=torch.int64, device=device)
        else:
            starts, length = _checked(cu_seqlens, batch, total)
            starts = starts.to(device, non_blocking=True)
            counts = starts.diff()
        offsets = torch.zeros_like(counts) if seen is None else seen.to(device)
        if len(offsets) != len(counts):
            raise ValueError(
                f"the cache holds {len(offsets)} sequences and the call brings {len(counts)}"
            )
        return cls(counts, offsets, length, starts, total)

    @property
    def batch(self) -> int:
        """Number of sequences N."""
        return len(self.counts)

    @property
    def packed(self) -> bool:
        return self.cu_seqlens is not None

    @property
    def length(self) -> int:
        """The largest count. Of sequences packed on a GPU the first look waits for the device."""
        if self._length is None:
            assert self.cu_seqlens is not None
            self._length = _longest(self.cu_seqlens, self.total)
        return self._length

    @property
    def places(self) -> Tensor:
        """(B, T) int64: position of each token of the call in its sequence."""
        if self._places is None:  # the same for all layers
            if self.cu_seqlens is None:
                self._places = self.positions
            else:
                sequence, column = self._packed_places(self.cu_seqlens)
                self._places = (column + self.offsets[sequence])[None]
        return self._places

    def _packed_places(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """(T,) both: the sequence of each packed token, and how many of its tokens precede it."""
        token = torch.arange(self.total, device=starts.device)
        sequence = torch.searchsorted(starts, token, right=True) - 1
        return sequence, token - starts[sequence]

    # ------------------------------------------------------------------------- the padded view

    @property
    def positions(self) -> Tensor:
        """(N, length) int64: position of each token in its sequence."""
        return self.offsets[:, None] + torch.arange(self.length, device=self.counts.device)

    @property
    def valid(self) -> Tensor:
        """(N, length) bool: false where the padded view holds no token."""
        return torch.arange(self.length, device=self.counts.device) < self.counts[:, None]

    @property
    def index(self) -> Tensor | None:
        """(N, length) int64 into the packed tokens, or None where the call is not packed."""
        if self.cu_seqlens is not None and self._index is None:
            columns = torch.arange(self.length, device=self.counts.device)
            index = self.cu_seqlens[:-1, None] + columns
            self._index = index.clamp_(max=max(0, self.total - 1))
        return self._index

    def pad(self, x: Tensor) -> Tensor:
        """(B, T, ...) to (N, length, ...), zero where there is no token."""
        index = self.index
        if index is None:
            return x
        padded = x[0, index]
        valid = self.valid.view(*index.shape, *[1] * (x.dim() - 2))
        return padded.masked_fill(~valid, 0)

    def pack(self, x: Tensor) -> Tensor:
        """(N, length, ...) back to the layout of the call."""
        if self.cu_seqlens is None:
            return x
        return x[self._packed_places(self.cu_seqlens)].unsqueeze(0)


def _checked(cu_seqlens: Tensor, batch: int, total: int) -> tuple[Tensor, int | None]:
    """As int64, and the largest count where a look does not wait for a device."""
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens must be int32 or int64, not {cu_seqlens.dtype}")
    starts = cu_seqlens.to(torch.int64)
    if batch != 1 or starts.dim() != 1 or len(starts) < 2:
        raise ValueError("cu_seqlens (N + 1,) goes with tokens of shape (1, total)")
    if starts.device.type != "cpu" or torch.compiler.is_compiling():
        return starts, None
    return starts, _longest(starts, total)


def _longest(starts: Tensor, total: int) -> int:
    edges: list[int] = starts.tolist()
    counts = [end - start for start, end in pairwise(edges)]
    if edges[0] != 0 or edges[-1] != total or min(counts) < 1:
        raise ValueError(f"cu_seqlens must rise from 0 to {total} by at least 1 a sequence")
    return max(counts)
