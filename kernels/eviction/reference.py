"""Learned token eviction under a budget, in plain PyTorch: the oracle of every kernel.

A token leaves the window of `window` tokens at query j + window and competes for one of `budget`
slots. Scores stay as they are, so each token has one time of death: query t sees key j iff
j <= t < death[j].
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = torch.iinfo(torch.int64).max
"""The death time of a token that stays."""


def death_times(z: Tensor, window: int, budget: int, sinks: int = 0) -> Tensor:
    """Query t sees j iff j <= t < death[j]: learned token eviction under a budget, exactly.

    z: (..., T) logits of whole sequences. The first `sinks` tokens never die and take as many of
    the `budget` slots. A token leaves the window at query j + window and dies there unless z > 0
    and it is among the best (z descending, position ascending) of those that left; it dies later
    when better ones fill the slots. Returns (..., T) int64.
    """
    position = torch.arange(z.shape[-1], device=z.device)
    candidates = z.masked_fill(~(z > 0) | (position < sinks), -torch.inf)
    _, fate = stream_top(z[..., :0], candidates, budget - sinks)
    death = torch.where(fate < z.shape[-1], fate + window, NEVER)
    return death.masked_fill(position < sinks, NEVER)


def stream_top(
    held: Tensor, arrivals: Tensor, slots: int, block: int = 256
) -> tuple[Tensor, Tensor]:
    """Until when a streaming top-`slots` holds each entry.

    held: (..., M), at most `slots` candidates from before; arrivals: (..., A), one after another.
    Both are scores in order of age, -inf for what is no candidate. An arrival enters if fewer
    than `slots` earlier ones are at least as good, and pushes out the latest of the lowest.
    Returns (..., M) and (..., A) int64: the index of the arrival at which the entry leaves (its
    own if it never enters, 0 for a held non-candidate), A if it stays.

    Arrivals are taken in blocks, each against the slots alone, so memory grows with
    (slots + block) * block and not with A^2.
    """
    total, before = arrivals.shape[-1], held.shape[-1]
    lead = arrivals.shape[:-1]
    index = torch.arange(before + total, device=arrivals.device).expand(*lead, -1)
    # One column more than entries: what writes for entries that already left ends there.
    fate = torch.full((*lead, before + total + 1), total, device=arrivals.device)
    entry = index[..., :before]
    for start in range(0, total, block):
        newcomers = arrivals[..., start : start + block]
        pool = torch.cat([held, newcomers], dim=-1)
        columns = before + start + torch.arange(newcomers.shape[-1], device=pool.device)
        entry = torch.cat([entry, columns.expand(*lead, -1)], dim=-1)
        leave = _leave_times(pool, held.shape[-1], slots)
        stays = leave == newcomers.shape[-1]
        fate.scatter_(-1, entry, torch.where(stays, total, start + leave))
        chosen = (~stays).to(torch.int8).argsort(dim=-1, stable=True)[..., :slots]
        gone = ~stays.gather(-1, chosen)
        held = pool.gather(-1, chosen).masked_fill(gone, -torch.inf)
        entry = entry.gather(-1, chosen).masked_fill(gone, before + total)
    return fate[..., :before], fate[..., before : before + total]


def _leave_times(pool: Tensor, held: int, slots: int) -> Tensor:
    """`stream_top` for one block: pool (..., held + C) holds the slots, then C arrivals.

    Returns (..., held + C): the arrival in 0..C-1 at which `slots` entries are ordered before
    this one, C if none is.
    """
    order = pool.argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        -1, order, torch.arange(pool.shape[-1], device=pool.device).expand_as(order)
    )
    held_before = torch.empty_like(order).scatter_(-1, order, (order < held).cumsum(-1))
    held_before[..., :held] -= 1  # an entry is not before itself
    before = rank[..., None, held:] < rank[..., :, None]
    full = before.cumsum(-1, dtype=torch.int32) >= (slots - held_before)[..., None]
    arrival = torch.arange(pool.shape[-1] - held, device=pool.device)
    own = F.pad(arrival, (held, 0))
    pushed_out = full & (arrival >= own[:, None])
    return torch.where(pool > -torch.inf, (~pushed_out).sum(-1), own)


def intervals(
    z: Tensor,
    window: int,
    budget: int | None,
    sinks: int = 0,
    floor: float = 0.0,
    cu_seqlens: Tensor | None = None,
    *,
    segment: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """death, kept, counts, snapshots and alive of `Intervals`, from the logits z (B, G, T).

    Candidates are the tokens with z > floor; the first `sinks` of each sequence, and those with
    z = inf, rank before all others. What an `Intervals` leaves unspecified is 0 here, but for the
    rest of `kept`.
    """
    tokens = z.shape[-1]
    edges = [0, tokens] if cu_seqlens is None else cu_seqlens.tolist()
    parts = [
        _deaths(z[..., start:end], start, window, budget, sinks, floor)
        for start, end in pairwise(edges)
    ]
    death = torch.cat(parts, dim=-1)
    position = torch.arange(tokens, device=z.device)
    stays = death > position + window
    kept = (~stays).to(torch.int8).argsort(dim=-1, stable=True).to(torch.int32)
    heads = torch.arange(-(-tokens // segment) + 1, device=z.device) * segment
    counts = F.pad(stays.cumsum(-1, dtype=torch.int32), (1, 0))[..., heads.clamp(max=tokens)]
    if budget is None:
        return death, kept, counts, None, None
    rows = []
    for head in heads[:-1].tolist():
        start = max(edge for edge in edges if edge < max(head, 1))
        slotted = death[..., start:head] > head - 1 + window
        rows.append(_positions(slotted, start, budget))
    snapshots, alive = (torch.stack(part, dim=2) for part in zip(*rows, strict=True))
    return death, kept, counts, snapshots, alive


def _deaths(
    z: Tensor, start: int, window: int, budget: int | None, sinks: int, floor: float
) -> Tensor:
    """Of one sequence that begins at position `start`: (..., T) int32."""
    index = torch.arange(z.shape[-1], device=z.device)
    scores = z.masked_fill(~(z > floor), -torch.inf).masked_fill(index < sinks, torch.inf)
    if budget is None:
        fate = torch.where(scores > -torch.inf, z.shape[-1], index)
    else:
        _, fate = stream_top(z[..., :0], scores, budget)
    latest = torch.iinfo(torch.int32).max
    return torch.where(fate < z.shape[-1], start + fate + window, latest).to(torch.int32)


def _positions(mask: Tensor, start: int, budget: int) -> tuple[Tensor, Tensor]:
    """Where mask (..., M) is true, `start` added, in `budget` columns; and how many: (...)."""
    width = min(mask.shape[-1], budget)
    count = mask.sum(-1, dtype=torch.int32)
    order = (~mask).to(torch.int8).argsort(dim=-1, stable=True)[..., :width] + start
    beyond = torch.arange(width, device=mask.device) >= count.unsqueeze(-1)
    listed = order.masked_fill(beyond, 0).to(torch.int32)
    return F.pad(listed, (0, budget - width)), count
