"""What a cache holds and the tokens of a call behind it, as one axis that kernels attend over.

Shapes: N sequences of L columns each, H query heads, G KV heads. A row ends with its newest token;
its columns before `first` are no part of it. Between kept tokens and the window columns may be
empty for some heads; no new query is near enough to have them in its window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.decode.op import History
from .call import Call
from .fused import sdpa
from .sequences import Sequences


@dataclass(frozen=True)
class Axis:
    """call: all columns, (N, L, heads, channels); queries of earlier tokens are 0, and raw_k is of
    the newest alone. positions: (N, G, L) int64 in the sequence, -1 in an empty column. first: (N,)
    int64. sequences: of the call that brought the new tokens."""

    call: Call
    positions: Tensor
    first: Tensor
    sequences: Sequences

    @classmethod
    def of(cls, call: Call, old: History) -> Axis:
        sequences, past = call.sequences, old.k.shape[1]
        pad, dtype, groups = sequences.pad, call.k.dtype, call.k.shape[2]
        new = sequences.positions.masked_fill(~sequences.valid, -1)[:, None]
        positions = torch.cat([old.positions, new.expand(-1, groups, -1)], dim=-1)
        q = F.pad(pad(call.q), (0, 0, 0, 0, past, 0))
        k = torch.cat([old.k.to(dtype), pad(call.k)], dim=1)
        v = torch.cat([old.v.to(dtype), pad(call.v)], dim=1)
        raw_k = None
        if old.raw_k is not None and call.raw_k is not None:
            raw_k = torch.cat([old.raw_k.to(dtype), pad(call.raw_k)], dim=1)
            raw_k = F.pad(raw_k, (0, 0, 0, 0, past - old.raw_k.shape[1], 0))
        if sequences.packed:  # rows are of unequal lengths: move each to the right
            shift = sequences.length - sequences.counts
            q, k, v = (_moved(x, shift, 1) for x in (q, k, v))
            raw_k = None if raw_k is None else _moved(raw_k, shift, 1)
            gone = torch.arange(positions.shape[-1], device=q.device) < shift[:, None, None]
            positions = _moved(positions, shift, 2).masked_fill(gone, -1)
        first = (positions >= 0).any(1).int().argmax(-1)
        whole = replace(call, q=q, k=k, v=v, raw_k=raw_k)
        return cls(whole, positions, first, sequences)

    @property
    def length(self) -> int:
        """L."""
        return self.positions.shape[-1]

    @property
    def packed(self) -> Call:
        """All rows one after another: (1, N L, heads, channels)."""
        edges = edges_of(self.first, self.length)
        counts, call = edges.diff(), self.call
        places = Sequences(counts, torch.zeros_like(counts), None, edges, flat(call.k).shape[1])
        return replace(
            call,
            q=flat(call.q),
            k=flat(call.k),
            v=flat(call.v),
            context=replace(call.context, sequences=places),
        )

    def newest(self, columns: int) -> Tensor:
        """cu_seqlens (2 N + 1,) of the last `columns` of each row, by the true start of each
        sequence: kept tokens, which are no neighbours of the rest, come before these columns."""
        reached = self.sequences.offsets + self.sequences.counts
        return edges_of((columns - reached).clamp(min=0), columns)

    def aligned(self, past: Tensor, new: Tensor | None = None) -> Tensor:
        """(N, G, L) from what is said of the cache's columns, and of new tokens (N, G, T)."""
        sequences = self.sequences
        if new is None:
            x = F.pad(past, (0, sequences.length))
        else:
            x = torch.cat([past, new.to(past.dtype)], dim=-1)
        return _moved(x, sequences.length - sequences.counts, 2) if sequences.packed else x

    def times(self, death: Tensor) -> Tensor:
        """Times (1, G, N L) of the packed axis on that of each row: (N, G, L)."""
        rows = torch.unflatten(death, -1, (-1, self.length))[0].transpose(0, 1)
        start = torch.arange(len(rows), device=death.device, dtype=death.dtype) * self.length
        return rows - start[:, None, None]

    def new(self, out: Tensor) -> Tensor:
        """What belongs to the new tokens, of (1, N L, H, E), in the layout of their call."""
        rows = torch.unflatten(out, 1, (-1, self.length))[0]
        sequences = self.sequences
        newest = rows[:, self.length - sequences.length :]
        if not sequences.packed:
            return newest
        shift = sequences.length - sequences.counts
        return sequences.pack(_moved(newest, -shift, 1))

    def by_rows(self) -> Tensor:
        """Full attention of the new tokens, in the layout of their call, row by row through
        PyTorch's own kernels. Looks at the lengths on the host."""
        call, outs = self.call, []
        lengths = torch.stack([self.first, self.sequences.counts]).tolist()
        for row, (first, count) in enumerate(zip(*lengths, strict=True)):
            q = call.q[row : row + 1, self.length - count :]
            k, v = call.k[row : row + 1, first:], call.v[row : row + 1, first:]
            outs.append(sdpa(q, k, v, call.rule.scale))
        return torch.cat(outs, dim=1 if self.sequences.packed else 0)


def edges_of(first: Tensor, columns: int) -> Tensor:
    """cu_seqlens (2 N + 1,) of N rows of `columns`, one after another: what is before a row's
    `first` column (N,) is a sequence of its own, maybe empty."""
    start = torch.arange(len(first), device=first.device) * columns
    ends = torch.stack([start + first, start + columns], dim=1).flatten()
    return F.pad(ends, (1, 0))


def flat(x: Tensor) -> Tensor:
    """Rows (N, L, ...) one after another: (1, N L, ...)."""
    return x.flatten(0, 1).unsqueeze(0)


def _moved(x: Tensor, shift: Tensor, dim: int) -> Tensor:
    """Row n of x (N, ...) moved by shift[n] columns of `dim`; what comes in is of no meaning."""
    length = x.shape[dim]
    source = torch.arange(length, device=x.device) - shift[:, None]
    shape = [len(x), *(length if axis == dim else 1 for axis in range(1, x.dim()))]
    return x.gather(dim, source.clamp(0, length - 1).view(shape).expand_as(x))
