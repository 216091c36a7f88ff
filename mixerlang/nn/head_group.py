"""KV heads with one keep: the branches of that keep, and which way each call of them goes.

Through the kernels every branch attends by itself, over the call's own tokens or a cache of fixed
size (fused.py, fused_cache.py). In plain PyTorch the branches share a store: keys are the tokens
still held, then the new ones; each branch says which of them a query sees, and which a later query
may still need; the rest is dropped. Without a cache nothing is held before, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import backend, fused_cache
from .blocks import Summaries, SummaryWeights
from .branch import Branch, CompressedBranch, Held, Seen, SetBranch
from .call import Call
from .chunk import Chunk, new_tokens, some
from .eviction import AttentionBranch, LearnedBranch, StaticBranch
from .keeps import ByHead, Compressed, Evict, GatedKeep, Keep, Learned, Union, Window, leaves
from .mixer import State
from .store import Tokens, nest, scoped
from .visibility import Extent


class Answer(NamedTuple):
    """outs: what each branch gives, (B, T, H, E). state: the new one, empty without a cache.
    revocable: whether the call's tokens can be forgotten again."""

    outs: list[Tensor]
    state: State
    revocable: bool = False


@dataclass(frozen=True)
class HeadGroup:
    """heads: its KV heads, of `kv_heads` in the layer. names: its branches, in the layer's list.

    extent: what the store holds. scored: the branches that keep a score with each token; if there
    are any, KV heads hold different tokens.
    State: `branches.<name>.*`, of the kernels or what a branch keeps beside the store; `tokens.*`,
    the store, in plain PyTorch.
    """

    kv_heads: int
    heads: tuple[int, ...]
    names: tuple[str, ...]
    extent: Extent
    scored: tuple[str, ...]

    # -------------------------------------------------------------------- its part of the heads

    @property
    def everyone(self) -> bool:
        return len(self.heads) == self.kv_heads

    def query_heads(self, call: Call) -> tuple[int, ...]:
        """Which of a layer's query heads read its KV heads."""
        share = call.q.shape[2] // self.kv_heads
        return tuple(head * share + index for head in self.heads for index in range(share))

    def of_kv(self, x: Tensor) -> Tensor:
        """Its heads of x (N, G, ...)."""
        return x if self.everyone else some(x, self.heads, 1)

    # ------------------------------------------------------------------------------- which way

    def attend(self, branches: nn.ModuleList, call: Call, state: State) -> Answer:
        """The answer to a call of its heads."""
        if call.cached and self.on_kernels(state):
            return self._with_cache(branches, call, state)
        if not call.cached and self._kernels_serve(branches, call):
            return Answer(
                [branch.fused(own).out for _, branch, own in self._calls(branches, call)], {}
            )
        chunk, k, v = call.padded()
        outs, left = self._in_plain_pytorch(branches, chunk, k, v, state)
        return Answer([call.packed(out) for out in outs], left)

    def on_kernels(self, state: State) -> bool:
        """Whether a state is one of the kernels."""
        return "tokens.k" not in state

    def reads_raw_keys(self, branches: nn.ModuleList) -> bool:
        """Whether a branch reads keys before positions."""
        return any(branch.reads_raw_keys for _, branch in self._branches(branches))

    def _kernels_serve(self, branches: nn.ModuleList, call: Call) -> bool:
        if not backend.kernels(call.q):
            return False
        reasons = [branch.route(call).reason for _, branch in self._branches(branches)]
        for reason in filter(None, reasons):
            backend.explain(f"attention in plain PyTorch: {reason}")
        return not any(reasons)

    def _with_cache(self, branches: nn.ModuleList, call: Call, state: State) -> Answer:
        outs, revocable = [], True
        for name, branch, own in self._calls(branches, call):
            out, may_go = fused_cache.attend(branch, own, scoped(f"branches.{name}", state))
            outs.append(out)
            revocable &= may_go
        return Answer(outs, state, revocable)

    def _calls(self, branches: nn.ModuleList, call: Call) -> Iterator[tuple[str, Branch, Call]]:
        for name, branch in self._branches(branches):
            yield name, branch, call.child("branches", name)

    # ---------------------------------------------------------------------------------- the store

    @property
    def spread(self) -> int:
        """P of the store: its heads, where they hold different tokens."""
        return len(self.heads) if self.scored else 1

    def bounded(self, branches: nn.ModuleList, max_length: int) -> bool:
        """Whether a cache for `max_length` tokens serves any length."""
        own = (module for _, branch in self._branches(branches) for module in branch.modules())
        grows = any(isinstance(module, Summaries) for module in own)
        return not grows and self.extent.size <= max_length

    def new_state(
        self, branches: nn.ModuleList, k: Tensor, v: Tensor, max_length: int | None
    ) -> State:
        """For tokens like k (N, G, 0, D) and v (N, G, 0, E)."""
        state: State = {}
        if backend.available(k.device, k.dtype):
            own = dict(self._branches(branches))
            reasons = [fused_cache.problem(branch, max_length) for branch in own.values()]
            if not any(reasons):
                for name, branch in own.items():
                    state |= nest(
                        f"branches.{name}", fused_cache.new_state(branch, k, v, max_length)
                    )
                return state
            for reason in filter(None, reasons):
                backend.explain(f"a cache for attention in plain PyTorch: {reason}")
        slots = self.extent.slots(max_length) or 0
        tokens = Tokens.empty(k, v, slots, self.spread, list(self.scored))
        state = nest("tokens", tokens.state(k.dtype))
        for name, branch in self._branches(branches):
            state |= nest(f"branches.{name}", branch.new_state(k, v, max_length))
        return state

    def _in_plain_pytorch(
        self, branches: nn.ModuleList, chunk: Chunk, k: Tensor, v: Tensor, state: State
    ) -> tuple[list[Tensor], State]:
        """What each branch gives, (N, H, T, E), and the new state (empty without a cache)."""
        keys = new_tokens(k, v, chunk.sequences, self.spread, list(self.scored))
        if chunk.cached:
            held = Tokens.of(scoped("tokens", state))
            # No sequence fills more slots than it has tokens, and filled slots come first.
            keys = held.first(min(held.slots, chunk.seen)).append(keys)
        seen: dict[str, Seen] = {}
        beside: SummaryWeights | None = None
        for name, branch in sorted(self._branches(branches), key=_compressed_first):
            own = replace(chunk, context=chunk.context.child("branches").child(name))
            branch_state = scoped(f"branches.{name}", state)
            seen[name] = branch(own, Held(keys, branch_state, keys.scores.get(name), beside))
            beside = beside or seen[name].summary
        outs = [seen[name].out for name in self.names]
        if not chunk.cached:
            return outs, {}
        return outs, self._left(chunk, keys, seen, state["tokens.k"].dtype)

    def _left(self, chunk: Chunk, keys: Tokens, seen: dict[str, Seen], dtype: torch.dtype) -> State:
        """The state after a chunk: what some branch still needs."""
        assert chunk.context.cache is not None
        for name in self.scored:
            scores = seen[name].scores
            assert scores is not None
            keys = keys.with_score(name, scores)
        retained = reduce(or_, [s.retained for s in seen.values() if s.retained is not None])
        slots = self.extent.slots(chunk.context.cache.max_length)
        kept = keys.keep(retained.expand_as(keys.positions), slots)
        state = nest("tokens", kept.state(dtype))
        for name, answer in seen.items():
            state |= nest(f"branches.{name}", answer.state or {})
        return state

    def _branches(self, branches: nn.ModuleList) -> Iterator[tuple[str, Branch]]:
        for name in self.names:
            branch = branches[int(name)]
            assert isinstance(branch, Branch)
            yield name, branch


def _compressed_first(item: tuple[str, Branch]) -> bool:
    return not isinstance(item[1], CompressedBranch)


def head_groups(
    keep: Keep, kv_heads: int, head_dim: int, value_dim: int, plain: bool
) -> tuple[list[HeadGroup], nn.ModuleList]:
    """The groups of a layer, and the branches of all. Heads with equal keeps go together.

    plain: whether the softmax is that of PyTorch's attention.
    """
    keeps = keep.keeps if isinstance(keep, ByHead) else (keep,) * kv_heads
    if len(keeps) != kv_heads:
        raise ValueError(f"by_head lists {len(keeps)} keeps for {kv_heads} KV heads")
    groups, branches = [], nn.ModuleList()
    for own in dict.fromkeys(keeps):
        heads = tuple(index for index, other in enumerate(keeps) if other == own)
        parts = own.parts if isinstance(own, GatedKeep) else (own,)
        made = {
            str(len(branches) + index): make_branch(part, len(heads), head_dim, value_dim)
            for index, part in enumerate(parts)
        }
        for branch in made.values():
            branch.plan(head_dim, value_dim, plain)
        branches.extend(made.values())
        held = reduce(or_, [branch.extent for branch in made.values()])
        scored = tuple(name for name, branch in made.items() if branch.evicts)
        groups.append(HeadGroup(kv_heads, heads, tuple(made), held, scored))
    return groups, branches


def make_branch(keep: Keep, kv_heads: int, head_dim: int, value_dim: int) -> Branch:
    """The layer for a keep without `gated` and `by_head`."""
    if isinstance(keep, Compressed):
        return CompressedBranch(keep, head_dim, value_dim)
    if isinstance(keep, Evict):  # alone: the query's own token and budget - 1 others
        return _evicting(1, replace(keep, budget=keep.budget - 1))
    for part in leaves(keep):
        if isinstance(part, Learned):
            return LearnedBranch(_window(keep), part, kv_heads, head_dim, value_dim)
        if isinstance(part, Evict):
            return _evicting(_window(keep), part)
    return SetBranch(keep, head_dim)


def _window(keep: Keep) -> int:
    """The size of the one window beside what evicts."""
    sizes = [part.size for part in leaves(keep) if isinstance(part, Window)]
    if len(sizes) != 1 or not isinstance(keep, Union) or len(leaves(keep)) != 2:
        raise ValueError(f"eviction stands in a union with exactly one window, not in {keep}")
    return sizes[0]


def _evicting(window: int, evict: Evict) -> Branch:
    if evict.policy in ("tova", "h2o"):
        return AttentionBranch(window, evict)
    return StaticBranch(window, evict)
