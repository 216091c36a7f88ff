"""Branches that hold a window and, per KV head, `budget` tokens more, chosen by a score.

A token competes for a slot when it leaves the window. Scores that do not change with later queries
(a learned one, a norm, a hash) make eviction an interval: query t sees key j iff j <= t < death[j].
Policies that follow the attention itself are simulated query by query.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..kernels.attention import reference
from ..kernels.decode.dense import hashed
from ..kernels.decode.op import scores as known_scores
from ..kernels.eviction.reference import NEVER, stream_top
from . import fused
from .branch import Branch, Held, Seen
from .call import Call
from .chunk import Chunk, weighted
from .fused import Fused
from .keeps import Evict, Learned, Union, Window
from .mixer import Context, State
from .route import Route
from .scorer import CnnScorer
from .store import Tokens, nest, scoped
from .visibility import Extent


class EvictingBranch(Branch):
    """A window and `budget` slots per KV head, the first `sinks` tokens pinned in them.

    scores: (N, G, S), higher is better; -inf for a token that this branch has dropped.
    """

    evicts = True

    def __init__(self, window: int, rule: Learned | Evict, sinks: int = 0) -> None:
        super().__init__()
        self.keep = Union((Window(window), rule))
        self.window, self.budget, self.sinks = window, rule.budget, sinks
        self.extent = Extent(window, rule.budget)


class IntervalBranch(EvictingBranch):
    """Scores that stay as they are, so that each token has a time of death."""

    floor = -torch.inf
    """Only tokens that score above it are candidates."""

    def scored(
        self, chunk: Chunk, keys: Tokens, scores: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """The scores of all keys, final for each that leaves the window in this chunk."""
        raise TypeError(f"{type(self).__name__} has no scores")

    def values(self, chunk: Chunk, keys: Tokens, scores: Tensor) -> Tensor:
        """What the weights sum."""
        return keys.v

    def uncapped(self, call: Call | Chunk) -> bool:
        """Whether every candidate stays, whatever the budget."""
        return False

    def logits(self, call: Call) -> Tensor:
        """(B, G, T) float32 at least: the scores of a call's tokens, through kernels."""
        raise TypeError(f"{type(self).__name__} has no scores")

    def fused(self, call: Call) -> Fused:
        return self.over(call, self.logits(call))

    def over(self, call: Call, z: Tensor, score: Tensor | None = None) -> Fused:
        """Attention under scores z; the call may be any axis of tokens whose first are sinks, or
        have z = inf."""
        return fused.over_intervals(
            call,
            z,
            window=self.window,
            budget=None if self.uncapped(call) else self.budget,
            sinks=self.sinks,
            floor=self.floor,
            score=score,
        )

    def forward(self, chunk: Chunk, held: Held) -> Seen:
        assert held.scores is not None
        keys = held.keys
        scores, state = self.scored(chunk, keys, held.scores, held.state)
        death = self.death_times(chunk, keys, scores.detach())
        in_window = reference.see_window(chunk.t, keys.positions.unsqueeze(-2), self.window)
        visible = (in_window | (chunk.t < death.unsqueeze(-2))) & chunk.past(keys)
        out = weighted(chunk.weights(keys, visible), self.values(chunk, keys, scores))
        alive = (death >= chunk.next) & keys.filled
        return Seen(out, alive, scores.masked_fill(~alive, -torch.inf), state)

    def death_times(self, chunk: Chunk, keys: Tokens, scores: Tensor) -> Tensor:
        """(N, G, S): the first query that no longer sees a key, NEVER if the chunk has none."""
        pinned = keys.positions < self.sinks
        candidate = (scores > self.floor) & keys.filled & ~pinned
        if self.uncapped(chunk):
            death = torch.where(candidate, NEVER, keys.positions + self.window)
        else:
            death = self._contested(chunk, keys, scores.masked_fill(~candidate, -torch.inf))
        return death.masked_fill(pinned, NEVER)

    def _contested(self, chunk: Chunk, keys: Tokens, scores: Tensor) -> Tensor:
        """Death times under the budget; scores are -inf where a key is no candidate."""
        offsets, old = chunk.sequences.offsets[:, None, None], keys.slots - chunk.sequences.length
        left_before = keys.positions < offsets - self.window
        held = scores.masked_fill(~left_before, -torch.inf)[..., :old]
        lead, leaver = self._leavers(chunk, keys)
        leaving = scores.gather(-1, leaver.clamp(min=0)).masked_fill(leaver < 0, -torch.inf)
        fates = stream_top(held, leaving, self.budget - self.sinks)
        held_death, leaver_death = (
            torch.where(fate < leaver.shape[-1], offsets + lead + fate, NEVER) for fate in fates
        )
        death = torch.where(left_before, keys.positions + self.window, NEVER)
        held_death = torch.where(held > -torch.inf, held_death, death[..., :old])
        return _put(torch.cat([held_death, death[..., old:]], dim=-1), leaver, leaver_death)

    def _leavers(self, chunk: Chunk, keys: Tokens) -> tuple[int, Tensor]:
        """The slots of the tokens that leave the window in the chunk, one after another.

        Returns `lead`, the queries before any does, and (N, G, T - lead): the slot of the token
        that leaves at query offset + lead + a, -1 if none does.
        """
        sequences = chunk.sequences
        lead = min(max(0, self.window - chunk.seen), sequences.length)
        slot = keys.locate(sequences.offsets + lead - self.window, sequences.length - lead)
        query = lead + torch.arange(slot.shape[-1], device=slot.device)
        return lead, slot.masked_fill(query >= sequences.counts[:, None, None], -1)


def _put(x: Tensor, column: Tensor, values: Tensor) -> Tensor:
    """x (..., S) with values (..., A) in the columns (..., A); a column of -1 is dropped."""
    dump = torch.cat([x, x[..., :1]], dim=-1)
    return dump.scatter(-1, column.masked_fill(column < 0, x.shape[-1]), values)[..., :-1]


class LearnedBranch(IntervalBranch):
    """Learned token eviction (LTE): logits of a CNN over each head's keys and values."""

    floor = 0.0
    reads_raw_keys = True

    def __init__(
        self, window: int, learned: Learned, kv_heads: int, head_dim: int, value_dim: int
    ) -> None:
        super().__init__(window, learned, learned.sinks)
        self.learned = learned
        self.scorer = CnnScorer(kv_heads, head_dim + value_dim, head_dim, learned.scorer)

    def new_state(self, k: Tensor, v: Tensor, max_length: int | None) -> State:
        return nest("scorer", self.scorer.new_state(len(k), k.dtype, k.device))

    def uncapped(self, call: Call | Chunk) -> bool:
        return self.training and not self.learned.capped and not call.cached

    def fused(self, call: Call) -> Fused:
        z, call = self._scored(call)
        if call.context.aux is not None and not call.cached:
            sequences = call.sequences
            last = sequences.counts[:, None] - self.learned.scorer.lookahead
            index = torch.arange(sequences.length, device=z.device)
            _report(call.context, call.rows(z), index < last)
        learns = self.training and not call.cached
        return self.over(call, z, _score(z) if learns else None)

    def _scored(self, call: Call) -> tuple[Tensor, Call]:
        """The logits, and the call with keys and values that bring their gradients to the scorer's
        backward pass, which adds them up."""
        assert call.raw_k is not None
        dropout = self.training and not call.cached
        z, raw_k, v = self.scorer.logits_and_inputs(
            call.raw_k, call.v, call.cu_seqlens, dropout=dropout
        )
        k = raw_k if call.k is call.raw_k else call.k
        return z, replace(call, k=k, v=v, raw_k=raw_k)

    def scored(
        self, chunk: Chunk, keys: Tokens, scores: Tensor, state: State
    ) -> tuple[Tensor, State]:
        sequences, lookahead = chunk.sequences, self.learned.scorer.lookahead
        new_v = keys.v[:, :, keys.slots - sequences.length :]
        kv = torch.cat([chunk.raw_k, new_v], dim=-1)
        if not chunk.cached:
            logits = self.scorer(kv, sequences).to(scores.dtype)
            index = torch.arange(sequences.length, device=kv.device)
            _report(chunk.context, logits, index < sequences.counts[:, None] - lookahead)
            return logits, {}
        logits, state = self.scorer.stream(kv, sequences, scoped("scorer", state))
        logits = logits.to(scores.dtype)
        _report(chunk.context, logits, sequences.valid & (sequences.positions >= lookahead))
        column = keys.positions - sequences.offsets[:, None, None] + lookahead
        final = (column >= 0) & (column < sequences.counts[:, None, None]) & keys.filled
        found = logits.gather(-1, column.clamp(0, sequences.length - 1))
        return torch.where(final, found, scores), nest("scorer", state)

    def values(self, chunk: Chunk, keys: Tokens, scores: Tensor) -> Tensor:
        if not self.training or chunk.cached:
            return keys.v
        return reference.straight_through(keys.v, _score(scores))


def _score(logits: Tensor) -> Tensor:
    """Above 0 where a token is a candidate."""
    return logits.sigmoid() - 0.5


def _report(context: Context, logits: Tensor, final: Tensor) -> None:
    """score: (N, G, T); final: (N, T), where scores have all the tokens that they read.

    With a cache, column i is the token that became final with new token i; caches of the kernels
    report nothing, as their scores are made some tokens at a time.
    """
    if context.aux is not None:
        context.report(score=_score(logits), final=final)


class StaticBranch(IntervalBranch):
    """Scores known as soon as a token is: the smallest keys stay, or those a hash prefers."""

    def __init__(self, window: int, evict: Evict) -> None:
        super().__init__(window, evict)
        self.policy = evict.policy
        self.reads_raw_keys = evict.policy == "norm"

    def route(self, call: Call) -> Route:
        return _while_training(self, call) or super().route(call)

    def fused(self, call: Call) -> Fused:
        found = _while_training(self, call)
        if found is None and self.budget:
            return super().fused(call)
        return fused.over_reach(call, found or self.route(call))

    def logits(self, call: Call) -> Tensor:
        positions = call.sequences.places.unsqueeze(1).expand(-1, call.k.shape[2], -1)
        assert self.held is not None
        return known_scores(self.held, call.raw_k, positions)

    def forward(self, chunk: Chunk, held: Held) -> Seen:
        if self.training and not chunk.cached:
            return Seen(chunk.attend_all(held.keys))
        return super().forward(chunk, held)

    def scored(
        self, chunk: Chunk, keys: Tokens, scores: Tensor, state: State
    ) -> tuple[Tensor, State]:
        old = keys.slots - chunk.sequences.length
        if self.policy == "norm":
            new = -chunk.raw_k.detach().to(scores.dtype).norm(dim=-1)
        else:
            new = hashed(keys.positions[..., old:]).to(scores.dtype)
        return torch.cat([scores[..., :old], new], dim=-1), state


def _while_training(branch: EvictingBranch, call: Call) -> Route | None:
    """Policies without weights evict nothing in training."""
    if not branch.training or call.cached:
        return None
    return branch.without_eviction


class AttentionBranch(EvictingBranch):
    """Policies that follow the attention: the step is the definition, a chunk is simulated.

    After each query the token that is about to leave the window joins those in the slots; if they
    are too many, the one with the least attention goes: from this query (tova), or from all so far
    (h2o), summed over the query heads of the KV head. Of equal ones the latest goes.
    """

    def __init__(self, window: int, evict: Evict) -> None:
        super().__init__(window, evict)
        self.policy = evict.policy

    def route(self, call: Call) -> Route:
        return _while_training(self, call) or super().route(call)

    def forward(self, chunk: Chunk, held: Held) -> Seen:
        keys, scores = held.keys, held.scores
        if self.training and not chunk.cached:
            return Seen(chunk.attend_all(keys))
        assert scores is not None
        alive = keys.filled & (scores > -torch.inf)
        out = []
        for index in range(chunk.sequences.length):
            t, q = chunk.t[:, :, index : index + 1], chunk.q[:, :, index : index + 1]
            j = keys.positions.unsqueeze(-2)
            visible = alive.unsqueeze(-2) & (j <= t)
            weights = chunk.rule.weights(q, keys.k, t, j, visible)
            out.append(weighted(weights, keys.v))
            mass = reference.group_sum(weights.detach(), keys.k.shape[1]).squeeze(-2)
            counts = (index < chunk.sequences.counts)[:, None, None]
            rated = mass if self.policy == "tova" else scores + mass
            scores = torch.where(counts, rated.to(scores.dtype), scores)
            outside = alive & (keys.positions <= t.squeeze(-1) + 1 - self.window)
            alive = alive & ~(counts & self._worst(outside, scores))
        scores = scores.masked_fill(~alive, -torch.inf)
        return Seen(torch.cat(out, dim=2), alive, scores, held.state)

    def _worst(self, outside: Tensor, scores: Tensor) -> Tensor:
        """The token to drop, if more than `budget` are outside the window: (N, G, S) bool."""
        last_first = scores.masked_fill(~outside, torch.inf).flip(-1)
        worst = scores.shape[-1] - 1 - last_first.argmin(-1, keepdim=True)
        crowded = outside.sum(-1, keepdim=True) > self.budget
        return torch.zeros_like(outside).scatter(-1, worst, crowded)
