"""A step over the fixed-size cache in plain PyTorch: CPU tensors, float64, and what tests trust.

Shapes: N sequences, T new tokens of each, H query heads, G KV heads; q (N, T, H, D), k and raw_k
(N, T, G, D), v (N, T, G, E), seen (N,) int64. The state is changed in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention import reference
from .layout import Layout
from .rule import Rule
from .state import State, ring_size


def step(
    layout: Layout,
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_k: Tensor | None,
    seen: Tensor,
    rule: Rule,
) -> Tensor:
    """(N, T, H, E). Later queries of a step fold tokens too, but into a copy: until the next step
    nobody knows whether they stay."""
    fold(layout, state, seen)
    write(layout, state, k, v, raw_k, seen)
    outs = []
    for index in range(q.shape[1]):
        if index == 1 and layout.slots:
            state = {name: tensor.clone() for name, tensor in state.items()}
        if index:
            fold(layout, state, seen + index)
        outs.append(attend(layout, state, q[:, index : index + 1], seen + index, rule))
    return torch.cat(outs, dim=1)


# ----------------------------------------------------------------------------------- the new tokens


def write(
    layout: Layout, state: State, k: Tensor, v: Tensor, raw_k: Tensor | None, seen: Tensor
) -> None:
    """Put the new tokens into the rings."""
    positions = seen[:, None] + torch.arange(k.shape[1], device=k.device)
    column = (positions % ring_size(layout, state))[:, None].expand(-1, k.shape[2], -1)
    _put(state["k"], column, k.transpose(1, 2))
    _put(state["v"], column, v.transpose(1, 2))
    if layout.kind == "learned":
        assert raw_k is not None
        own = (positions % layout.raw_rows)[:, None].expand_as(column)
        _put(state["raw_k"], own, raw_k.transpose(1, 2))
        due = seen - layout.lookahead - state["scored"] >= layout.period
        state["due"].copy_(torch.where(due, state["scored"], -1))
        state["scored"] += due * layout.period
    elif layout.evicts:
        _put(state["z"], column, scores(layout, raw_k, positions[:, None].expand_as(column)))


def scores(layout: Layout, raw_k: Tensor | None, positions: Tensor) -> Tensor:
    """What the kinds `norm` and `random` know of tokens at once: (N, G, T) float32.

    raw_k: (N, T, G, D), keys before positions; positions: (N, G, T) int64.
    """
    if layout.kind == "random":
        return hashed(positions).to(torch.float32)
    assert raw_k is not None
    precise = raw_k.to(torch.promote_types(raw_k.dtype, torch.float32))
    norm: Tensor = precise.norm(dim=-1)
    return -norm.transpose(1, 2).to(torch.float32)


def hashed(positions: Tensor) -> Tensor:
    """A number below 2^24 for each position below 2^32, the same everywhere."""
    x = positions.clamp(min=0)
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return (x ^ (x >> 16)) >> 8


# --------------------------------------------------------------------------- leaving the window


def fold(layout: Layout, state: State, seen: Tensor) -> None:
    """Take what the query at `seen` has no longer in its window out of the ring, one by one."""
    if not layout.slots:
        return
    assert layout.window is not None
    for _ in range(layout.span):
        leaver = state["folded"].to(torch.int64)
        due = leaver <= (seen - layout.window)[:, None]
        target = _target(layout, state, leaver)
        _move(layout, state, leaver, torch.where(due, target, -1))
        state["folded"] += due.to(torch.int32)


def _target(layout: Layout, state: State, leaver: Tensor) -> Tensor:
    """The slot that each leaver (N, G) takes, -1 where it is dropped.

    Sinks have their own. A candidate takes that of the lowest score, if its own is higher; of
    equal ones the latest goes, and an empty slot is lower than all.
    """
    pinned = leaver < layout.sinks
    if not layout.contested:
        return torch.where(pinned, leaver, -1)
    ring = ring_size(layout, state)
    own = state["z"].gather(-1, (leaver % ring)[..., None])
    held = state["z"][..., ring + layout.sinks :]
    positions = state["position"][..., layout.sinks :]
    lowest = held == held.amin(-1, keepdim=True)
    loser = positions.masked_fill(~lowest, -2).argmax(-1, keepdim=True)
    floor = 0.0 if layout.kind == "learned" else -torch.inf
    enters = (own > floor) & (own > held.gather(-1, loser))
    target = torch.where(enters, layout.sinks + loser, -1)[..., 0]
    return torch.where(pinned, leaver, target)


def _move(layout: Layout, state: State, leaver: Tensor, target: Tensor) -> None:
    """Copy tokens at positions leaver (N, G) from the ring to slots target (N, G), none if -1."""
    ring = ring_size(layout, state)
    source, taken = (leaver % ring)[..., None], (target >= 0)[..., None]
    column = ring + target.clamp(min=0)[..., None]
    names = ["k", "v", "z"] if layout.evicts else ["k", "v"]
    for name in names:
        x = state[name]
        row, old = _rows(x, source), _rows(x, column)
        _put(x, column, torch.where(_like(taken, row), row, old))
    slot = target.clamp(min=0)[..., None]
    position = torch.where(taken[..., 0], leaver, state["position"].gather(-1, slot)[..., 0])
    state["position"].scatter_(-1, slot, position[..., None].to(torch.int32))


def _like(flag: Tensor, x: Tensor) -> Tensor:
    return flag if x.dim() == 3 else flag[..., None]


def _rows(x: Tensor, column: Tensor) -> Tensor:
    """x (N, G, S) or (N, G, S, D) at column (N, G, X)."""
    if x.dim() == 3:
        return x.gather(2, column)
    return x.gather(2, column[..., None].expand(-1, -1, -1, x.shape[-1]))


def _put(x: Tensor, column: Tensor, rows: Tensor) -> None:
    """x (N, G, S) or (N, G, S, D) gets rows at column (N, G, X)."""
    if x.dim() == 4:
        column = column[..., None].expand(-1, -1, -1, x.shape[-1])
    x.scatter_(2, column, rows.to(x.dtype))


# ---------------------------------------------------------------------------------------- attention


def attend(layout: Layout, state: State, q: Tensor, t: Tensor, rule: Rule) -> Tensor:
    """Queries q (N, 1, H, D) at positions t (N,): (N, 1, H, E)."""
    ring, groups = ring_size(layout, state), state["k"].shape[1]
    # What stood in the ring before it was written over lies beyond the window, so each entry is
    # as good as the latest position, up to t, that may stand there.
    entry = torch.arange(ring, device=q.device)
    j = (t[:, None] - (t[:, None] - entry) % ring)[:, None]
    now = t[:, None, None]
    sink = j < layout.sinks  # in the window too, where its holes would hide them
    near = reference.see_window(now, j, _window(layout)) & (((now - j) % layout.rate == 0) | sink)
    if layout.everything:
        near = near | sink
        if layout.strided:
            near = near | reference.see_strided(now, j, layout.strided)
    visible = (near & (j >= 0)).expand(-1, groups, -1)
    j = j.expand(-1, groups, -1)
    if layout.slots:
        visible = torch.cat([visible, state["position"] >= 0], dim=-1)
        j = torch.cat([j, state["position"].to(torch.int64)], dim=-1)
    bias = None
    if rule.slopes is not None:
        wide = j.repeat_interleave(q.shape[2] // groups, dim=1)
        bias = reference.alibi_bias(rule.slopes, now[..., None], wide[:, :, None])
    out = reference.attention(
        *(q.transpose(1, 2), state["k"], state["v"], visible[:, :, None]),
        *(rule.scale, rule.softcap, rule.sink_logits, bias),
    )
    return out.transpose(1, 2)


def _window(layout: Layout) -> int:
    """Beyond every position where the layout has no window."""
    return 2**62 if layout.window is None else layout.window
