"""The state of a layout as tensors: made, filled after a prefill, read back for the next chunk.

Shapes: N sequences, G KV heads, X tokens on the axis of a call, D channels of keys, E of values.
Nothing here waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Layout

State = dict[str, Tensor]

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)

NEVER = 2**31 - 1
"""The death time of a token that stays."""


def new_state(
    layout: Layout,
    batch: int,
    kv_heads: int,
    head_dim: int,
    value_dim: int,
    max_length: int | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> State:
    """An empty state; what its tensors hold is told in Layout.arrays."""
    dtypes = {"cache": dtype, "score": torch.float32, "index": torch.int32}
    arrays = layout.arrays(batch, kv_heads, head_dim, value_dim, max_length)
    return {
        name: torch.full(array.shape, array.fill, dtype=dtypes[array.kind], device=device)
        for name, array in arrays.items()
    }


def ring_size(layout: Layout, state: State) -> int:
    """Entries of the ring."""
    return state["k"].shape[2] - layout.slots


# ------------------------------------------------------------------------------------------- fill


def fill(
    layout: Layout,
    state: State,
    k: Tensor,
    v: Tensor,
    *,
    next: Tensor,
    raw_k: Tensor | None = None,
    z: Tensor | None = None,
    death: Tensor | None = None,
    positions: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> None:
    """Overwrite a state with the tokens of a call's axis, after which `next` tokens were seen.

    k (B, X, G, D), v (B, X, G, E), raw_k like k: rows of the axis, B = N; or, packed, B = 1 and
    cu_seqlens (N + 1,). Each sequence's tokens end with its newest one, and the newest that the
    ring holds lie side by side in order. z (B, G, X) and death (B, G, X), of the kinds that evict:
    scores, and eviction.Intervals.death, times on this axis. positions: (B, X) or (B, G, X), of
    each token in its sequence, negative where the axis holds none; counted from the sequence's
    first token unless given. next: (N,) integers. The last `lookahead` scores need not be final.
    """
    run = fill_plainly
    if k.is_cuda and state["k"].dtype in KERNEL_DTYPES:
        from . import fill_launch  # needs triton, which a machine without CUDA may lack

        run = fill_launch.fill
    run(
        *(layout, state, k, v),
        next=next,
        raw_k=raw_k,
        z=z,
        death=death,
        positions=positions,
        cu_seqlens=cu_seqlens,
    )


def fill_plainly(
    layout: Layout,
    state: State,
    k: Tensor,
    v: Tensor,
    *,
    next: Tensor,
    raw_k: Tensor | None = None,
    z: Tensor | None = None,
    death: Tensor | None = None,
    positions: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> None:
    """In plain PyTorch, some forty launches."""
    ring = ring_size(layout, state)
    firsts = positions is None and cu_seqlens is None  # rows of the first tokens, all as long
    if firsts and not layout.slots and k.shape[1] <= ring:
        state["k"][:, :, : k.shape[1]] = k.transpose(1, 2)
        state["v"][:, :, : v.shape[1]] = v.transpose(1, 2)
        return
    axis = _Axis.of(k, cu_seqlens)
    entry = torch.arange(ring, device=k.device)
    newest = next.to(torch.int64)[:, None] - 1
    back = (newest - entry) % ring  # how long before the newest token an entry's was
    source = axis.ends[:, None] - 1 - back
    found = (source >= axis.starts[:, None]) & (back <= newest)
    _put_rows(state["k"], 0, k, source, found)
    _put_rows(state["v"], 0, v, source, found)
    if z is not None and layout.evicts:
        held = axis.flat(z)[:, source.clamp(min=0)].transpose(0, 1)
        state["z"][..., :ring] = held.masked_fill(~found[:, None], -torch.inf)
    if layout.kind == "learned":
        assert raw_k is not None
        rows = layout.raw_rows
        back = (newest - torch.arange(rows, device=k.device)) % rows
        source = axis.ends[:, None] - 1 - back
        found = (source >= axis.starts[:, None]) & (back <= newest)
        _put_rows(state["raw_k"], 0, raw_k, source, found)
        state["scored"].copy_((next - layout.lookahead).clamp(min=0))
    if layout.slots:
        _fill_slots(layout, state, k, v, z, death, axis.positions(positions), next, axis)


def _fill_slots(
    layout: Layout,
    state: State,
    k: Tensor,
    v: Tensor,
    z: Tensor | None,
    death: Tensor | None,
    positions: Tensor,
    next: Tensor,
    axis: _Axis,
) -> None:
    """Slots: sinks at their positions, then the kept tokens in order. positions: (G, tokens)."""
    assert layout.window is not None
    ring, slots = ring_size(layout, state), layout.slots
    left = (next - layout.window).clamp(min=0).to(torch.int64)
    outside = (positions >= 0) & (positions < left[axis.sequence])
    sink = outside & (positions < layout.sinks)
    target = torch.where(sink, positions, -1)
    if layout.evicts:
        assert z is not None and death is not None
        kept = outside & ~sink & axis.alive(death)
        target = torch.where(kept, layout.sinks + axis.rank(kept), target)
    groups = len(target)
    columns = torch.where(
        (target >= 0) & (target < slots), axis.sequence * slots + target, axis.sequences * slots
    )
    index = torch.arange(target.shape[1], device=k.device).expand(groups, -1)
    source = index.new_full((groups, axis.sequences * slots + 1), -1).scatter_(1, columns, index)
    source = source[:, :-1].view(groups, axis.sequences, slots).transpose(0, 1)
    found = source >= 0
    _put_rows(state["k"], ring, k, source, found)
    _put_rows(state["v"], ring, v, source, found)
    clamped = source.clamp(min=0).transpose(0, 1).flatten(1)
    held = positions.expand(groups, -1).gather(1, clamped).view(groups, axis.sequences, slots)
    state["position"].copy_(held.transpose(0, 1).masked_fill(~found, -1))
    state["folded"].copy_(left[:, None].expand_as(state["folded"]))
    if z is not None and layout.evicts:
        held = axis.flat(z).gather(1, clamped).view(groups, axis.sequences, slots).transpose(0, 1)
        state["z"][..., ring:] = held.masked_fill(~found, -torch.inf)


def _put_rows(target: Tensor, first: int, rows: Tensor, source: Tensor, found: Tensor) -> None:
    """target (N, G, S, D)[:, :, first + x] = row source[n, (g,) x] of rows (B, X, G, D), zeros
    where not found. source, found: (N, X) or (N, G, X)."""
    flat, index = rows.flatten(0, 1), source.clamp(min=0)
    if source.dim() == 2:
        taken = flat[index].transpose(1, 2)
        found = found[:, None]
    else:
        taken = flat[index, torch.arange(flat.shape[1], device=flat.device)[:, None]]
    width = source.shape[-1]
    target[:, :, first : first + width] = taken.masked_fill(~found[..., None], 0).to(target.dtype)


class _Axis(NamedTuple):
    """The tokens of a call one after another. starts, ends: (N,) int64, of each sequence; sequence:
    (tokens,), which one a token is of; rows: tokens of a row of the call."""

    starts: Tensor
    ends: Tensor
    sequence: Tensor
    rows: int

    @classmethod
    def of(cls, k: Tensor, cu_seqlens: Tensor | None) -> _Axis:
        batch, rows = k.shape[:2]
        if cu_seqlens is None:
            edges = torch.arange(batch + 1, device=k.device) * rows
        else:
            edges = cu_seqlens.to(torch.int64)
        index = torch.arange(batch * rows, device=k.device)
        sequence = torch.searchsorted(edges, index, right=True) - 1
        return cls(edges[:-1], edges[1:], sequence, rows)

    @property
    def sequences(self) -> int:
        return len(self.starts)

    @staticmethod
    def flat(x: Tensor) -> Tensor:
        """(B, G, X) to (G, tokens)."""
        return x.transpose(0, 1).flatten(1)

    def positions(self, given: Tensor | None) -> Tensor:
        """(G or 1, tokens) int64."""
        if given is None:
            index = torch.arange(len(self.sequence), device=self.sequence.device)
            return (index - self.starts[self.sequence])[None]
        return self.flat(given if given.dim() == 3 else given[:, None]).to(torch.int64)

    def alive(self, death: Tensor) -> Tensor:
        """(G, tokens): whether a token still is in a slot when its sequence's last one is there."""
        last = self.ends[self.sequence] - 1
        if death.shape[0] > 1:  # rows count their own tokens
            last = last % self.rows
        return self.flat(death) > last

    def rank(self, kept: Tensor) -> Tensor:
        """(G, tokens): how many of `kept` precede a token in its sequence."""
        before = kept.cumsum(1) - kept.to(torch.int64)
        return before - before[:, self.starts][:, self.sequence]


# ---------------------------------------------------------------------------------------- history


class History(NamedTuple):
    """What a state holds, as an axis of tokens: slots by position, then the ring in order.

    k (N, X, G, D), v (N, X, G, E), X = slots + ring; positions (N, G, X) int64, -1 where there is
    no token; z (N, G, X), -inf there and where no score is final yet, +inf for sinks; None where
    nothing evicts. Column X - 1 is the newest token, and the ring's columns are one position apart:
    a token that stands in a slot is absent from them. raw_k (N, rows, G, D): keys before positions
    of the newest `raw_rows` tokens, zeros before the first; scored (N,): tokens before it have
    final scores.
    """

    k: Tensor
    v: Tensor
    positions: Tensor
    z: Tensor | None
    raw_k: Tensor | None
    scored: Tensor | None


def history(layout: Layout, state: State, seen: Tensor) -> History:
    """seen: (N,) integers, the tokens of each sequence so far."""
    ring, groups = ring_size(layout, state), state["k"].shape[1]
    seen = seen.to(torch.int64)
    column = torch.arange(ring, device=seen.device)
    positions = seen[:, None] - ring + column
    source = (positions % ring)[:, None].expand(-1, groups, -1)
    positions = positions.clamp(min=-1)[:, None].expand(-1, groups, -1)
    if layout.slots:
        positions = torch.where(positions < state["folded"][..., None], -1, positions)
        slots, order = state["position"].to(torch.int64).sort(dim=-1)
        positions = torch.cat([slots, positions], dim=-1)
        source = torch.cat([ring + order, source], dim=-1)
    z = scored = raw_k = None
    if layout.kind == "learned":
        scored = state["scored"].to(torch.int64)
        rows = seen[:, None] - layout.raw_rows + torch.arange(layout.raw_rows, device=seen.device)
        index = (rows % layout.raw_rows)[:, None].expand(-1, groups, -1)
        raw_k = _take(state["raw_k"], index).masked_fill((rows < 0)[..., None, None], 0)
    if layout.evicts:
        final = positions >= 0
        if scored is not None:
            final &= positions < scored[:, None, None]
        z = state["z"].gather(-1, source).masked_fill(~final, -torch.inf)
        z = z.masked_fill((positions >= 0) & (positions < layout.sinks), torch.inf)
    k, v = _take(state["k"], source), _take(state["v"], source)
    return History(k, v, positions, z, raw_k, scored)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows index (N, G, X) of x (N, G, S, D): (N, X, G, D)."""
    rows = x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]))
    return rows.transpose(1, 2)
