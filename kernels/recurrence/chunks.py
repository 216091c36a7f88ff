"""How a recurrence's tokens lie in chunks, and what each token brings.

Shapes: N sequences (one row of tokens if packed), T tokens, H heads, A value heads; q, k
(N, T, H, K), v (N, T, A, V), g (N, T, A) or (N, T, H, K), b (N, T, A).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .variant import CHUNK


class Inputs(NamedTuple):
    """What a recurrence is given, token by token; g and b None where the variant has none."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None = None
    b: Tensor | None = None


class Cut(NamedTuple):
    """How tokens lie in chunks: how many there are, sequences, tokens of a row; stretches of chunks
    that each sequence is cut into, and tokens in one; tables, where packed, of chunks and of
    sequences (see `tables`)."""

    chunks: int
    sequences: int
    tokens: int
    stretches: int
    size: int
    of_chunks: Tensor | None = None
    of_sequences: Tensor | None = None

    @classmethod
    def of(cls, batch: int, tokens: int, cu_seqlens: Tensor | None = None, most: int = 1) -> Cut:
        """most: stretches of a sequence, where sequences are not packed."""
        per = -(-tokens // CHUNK)
        if cu_seqlens is None:
            size = -(-per // most)
            return cls(batch * per, batch, tokens, -(-per // size), size * CHUNK)
        sequences = len(cu_seqlens) - 1
        chunks = per + sequences
        return cls(chunks, sequences, tokens, 1, tokens, *tables(cu_seqlens, chunks))


def tables(cu_seqlens: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    """(chunks, 4) and (N, 4) int32, a row for each chunk and each sequence: sequence, first token,
    end, first chunk. Rows that are left over are empty. Without a wait for the device."""
    edges = cu_seqlens.to(torch.int32)
    first = (edges.diff() + CHUNK - 1).div(CHUNK, rounding_mode="floor").cumsum(0)
    first = torch.cat([first.new_zeros(1), first])
    number = torch.arange(chunks, device=edges.device)
    of = torch.searchsorted(first[1:], number, right=True).clamp(max=len(edges) - 2)
    start = edges[of] + (number - first[of]) * CHUNK
    end = torch.minimum(start + CHUNK, edges[of + 1])
    sequences = torch.arange(len(edges) - 1, device=edges.device)
    rows = ([of, start, end, number], [sequences, edges[:-1], edges[1:], first[:-1]])
    by_chunk, by_sequence = (torch.stack(row, 1).to(torch.int32) for row in rows)
    return by_chunk, by_sequence
