"""Attention through kernels with a cache of fixed size: steps, prefills, and longer chunks.

Shapes: N sequences, T new tokens of each, H query heads, G KV heads. A chunk after earlier tokens
attends over an axis of X + T columns per sequence: what the cache holds, by position, then the new
tokens; each row ends with its newest token, and what stands before its first one is no part of it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.decode import op
from ..kernels.decode.layout import Layout
from ..kernels.decode.op import History
from . import backend, fused
from .axis import Axis, flat
from .branch import Branch
from .call import Call
from .eviction import LearnedBranch
from .fused import Fused
from .mixer import Cache, State
from .sequences import Sequences


def problem(branch: Branch, max_length: int | None) -> str | None:
    """Why there can be no such cache, if so."""
    if branch.planned.op == "eager":
        return branch.planned.reason
    if branch.held is None:
        return "its window is hardly longer than what its scores read ahead"
    if branch.held.everything and max_length is None:
        return "it holds all of the past: new_cache(max_length=...) gives it a size"
    return None


def new_state(branch: Branch, k: Tensor, v: Tensor, max_length: int | None) -> State:
    """An empty cache for tokens like k (N, G, 0, D) and v (N, G, 0, E)."""
    batch, groups, _, dim = k.shape
    return op.new_state(
        _layout(branch), batch, groups, dim, v.shape[-1], max_length, k.dtype, k.device
    )


def attend(branch: Branch, call: Call, state: State) -> tuple[Tensor, bool]:
    """(B, T, H, E), with the call's tokens put into the state; and whether they can be taken out
    again by counting fewer as seen."""
    cache, sequences = call.context.cache, call.sequences
    assert cache is not None
    layout = _layout(branch)
    if not sequences.packed and sequences.length <= layout.span:
        return _step(branch, call, state), True
    if cache.longest == 0:
        return _first(branch, call, state), False
    if layout.slots and not _axis_serves(layout, call):
        return _in_steps(branch, call, state), False
    return _chunk(branch, call, state, cache), False


def _axis_serves(layout: Layout, call: Call) -> bool:
    """Whether distances to tokens in slots do not matter."""
    return call.rule.slopes is None and layout.rate == 1


def _layout(branch: Branch) -> Layout:
    layout = branch.held
    assert layout is not None, f"a cache of the kernels for {branch.keep}"
    return layout


# ---------------------------------------------------------------------------------------- steps


def _step(branch: Branch, call: Call, state: State) -> Tensor:
    """As many new tokens of each sequence as the cache takes at once."""
    dtype = state["k"].dtype
    scorer = branch.scorer.packed(dtype) if isinstance(branch, LearnedBranch) else None
    return op.step(
        _layout(branch),
        state,
        call.q,
        call.k,
        call.v,
        seen=call.sequences.offsets,
        raw_k=call.raw_k,
        scorer=scorer,
        **call.softmax,
    ).to(call.q.dtype)


def _in_steps(branch: Branch, call: Call, state: State) -> Tensor:
    """A chunk as a row of steps, which know every position as it is."""
    backend.explain(
        "a prefill after earlier tokens goes in steps: kept tokens with ALiBi or a dilated window"
    )
    sequences = call.sequences
    if not sequences.packed:
        return _row_in_steps(branch, call, state, sequences.offsets, sequences.length)
    outs, start = [], 0
    for row, count in enumerate(sequences.counts.tolist()):
        part = call.tokens(start, start + count)
        own = {name: tensor[row : row + 1] for name, tensor in state.items()}
        outs.append(_row_in_steps(branch, part, own, sequences.offsets[row : row + 1], count))
        start += count
    return torch.cat(outs, dim=1)


def _row_in_steps(branch: Branch, call: Call, state: State, seen: Tensor, length: int) -> Tensor:
    span, outs = _layout(branch).span, []
    for start in range(0, length, span):
        part = call.tokens(start, min(start + span, length))
        place = Sequences.of(part.q, seen=seen + start)
        context = replace(part.context, sequences=place)
        outs.append(_step(branch, replace(part, context=context), state))
    return torch.cat(outs, dim=1)


# ------------------------------------------------------------------------------------- prefills


def _first(branch: Branch, call: Call, state: State) -> Tensor:
    """The first tokens of all sequences."""
    answer, counts = branch.fused(call), call.sequences.counts
    _fill(_layout(branch), state, call, answer, next=counts, cu_seqlens=call.cu_seqlens)
    return answer.out


@torch.no_grad()
def _fill(
    layout: Layout,
    state: State,
    axis: Call,
    answer: Fused,
    *,
    next: Tensor,
    positions: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> None:
    """The state that the tokens of a call, or of an axis, leave."""
    death = None if answer.intervals is None else answer.intervals.death
    op.fill(
        layout,
        state,
        axis.k,
        axis.v,
        next=next,
        raw_k=axis.raw_k,
        z=answer.z,
        death=death,
        positions=positions,
        cu_seqlens=cu_seqlens,
    )


def _chunk(branch: Branch, call: Call, state: State, cache: Cache) -> Tensor:
    """Tokens after earlier ones."""
    layout = _layout(branch)
    old = op.history(layout, state, cache.seen)
    if not layout.slots and cache.longest < old.k.shape[1]:
        first = old.k.shape[1] - cache.longest
        old = old._replace(
            k=old.k[:, first:], v=old.v[:, first:], positions=old.positions[..., first:]
        )
    axis = Axis.of(call, old)
    if layout.slots:
        answer = _over_kept(layout, axis, _scores(branch, call, old, axis))
    elif branch.route(call).op == "sdpa" and fused.sdpa_fits(call):
        answer = Fused(axis.by_rows())
    else:
        answer = Fused(axis.new(fused.over_reach(axis.packed, branch.route(call)).out))
    reached = call.sequences.offsets + call.sequences.counts
    _fill(layout, state, axis.call, answer, next=reached, positions=axis.positions)
    return answer.out


def _over_kept(layout: Layout, axis: Axis, z: Tensor) -> Fused:
    """Attention of the new tokens over the window and the kept tokens of an axis with scores z
    (N, G, L); times and scores are those of its rows."""
    assert layout.window is not None
    answer = fused.over_intervals(
        axis.packed,
        flat(z.transpose(1, 2)).transpose(1, 2),
        window=layout.window,
        budget=layout.budget if layout.evicts else None,
        sinks=0,
        floor=-torch.inf if layout.kind in ("norm", "random") else 0.0,
    )
    assert answer.intervals is not None
    times = answer.intervals._replace(death=axis.times(answer.intervals.death))
    return Fused(axis.new(answer.out), z, times)


def _scores(branch: Branch, call: Call, old: History, axis: Axis) -> Tensor:
    """(N, G, L): of all columns, inf for sinks, -inf for empty ones."""
    layout, positions = _layout(branch), axis.positions
    if isinstance(branch, LearnedBranch):
        z = _learned_scores(branch, old, axis)
    elif layout.evicts:
        z = _known_scores(layout, call, old, axis)
    else:
        z = torch.full_like(positions, -torch.inf, dtype=torch.float32)
    z = z.masked_fill(positions < layout.sinks, torch.inf)
    return z.masked_fill(positions < 0, -torch.inf)


def _learned_scores(branch: LearnedBranch, old: History, axis: Axis) -> Tensor:
    """Those that were final before, and those that the newest rows give."""
    assert old.z is not None and old.raw_k is not None and old.scored is not None
    assert axis.call.raw_k is not None
    columns = old.raw_k.shape[1] + axis.sequences.length
    raw_k, v = (flat(x[:, axis.length - columns :]) for x in (axis.call.raw_k, axis.call.v))
    fresh = branch.scorer.logits(raw_k, v, axis.newest(columns))
    fresh = torch.unflatten(fresh, -1, (-1, columns))[0].transpose(0, 1)
    before = axis.aligned(old.z)
    late = axis.positions >= old.scored[:, None, None]
    return torch.where(late, F.pad(fresh, (axis.length - columns, 0)).to(before.dtype), before)


def _known_scores(layout: Layout, call: Call, old: History, axis: Axis) -> Tensor:
    """Those of the cache, and those of the new tokens."""
    assert old.z is not None
    sequences = call.sequences
    raw_k = None if call.raw_k is None else sequences.pad(call.raw_k)
    positions = sequences.positions[:, None].expand(-1, call.k.shape[2], -1)
    return axis.aligned(old.z, op.scores(layout, raw_k, positions))
