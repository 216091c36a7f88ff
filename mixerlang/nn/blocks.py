"""Summaries of blocks of tokens, each made once, when its block is complete."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.attention import reference
from ..kernels.attention.reference import summary_count
from .chunk import Chunk, SoftmaxRule
from .keeps import Blocks, MeanMap, MlpMap
from .mixer import State
from .store import Tokens, take_rows


class BlockMean(nn.Module):
    """The mean of each block: (..., size, dim) to (..., dim)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-2)


class BlockMlp(nn.Module):
    """Two layers over a flattened block, after adding a learned vector per place in the block."""

    def __init__(self, size: int, dim: int, expand: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.empty(size, dim))
        self.up = nn.Linear(size * dim, expand * dim)
        self.down = nn.Linear(expand * dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.places, std=0.02)
        self.up.reset_parameters()
        self.down.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.silu(self.up((x + self.places).flatten(-2))))
        return y


def block_map(rule: MeanMap | MlpMap, size: int, dim: int) -> nn.Module:
    """The layer that summarises blocks of `size` vectors of `dim` channels."""
    return BlockMlp(size, dim, rule.expand) if isinstance(rule, MlpMap) else BlockMean()


class Summaries(nn.Module):
    """Keys, and with `value_dim` values, of the blocks of `size` tokens every `stride`.

    They are slots like those of tokens, at the position of the block's last token: a query sees a
    summary from there on. State: the summaries so far.
    """

    def __init__(
        self,
        size: int,
        stride: int,
        rule: MeanMap | MlpMap,
        head_dim: int,
        value_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.key_map = block_map(rule, size, head_dim)
        self.value_map = None if value_dim is None else block_map(rule, size, value_dim)

    def new_state(self, k: Tensor, v: Tensor, max_length: int | None) -> State:
        """For sequences of up to `max_length` tokens like k (N, G, 0, D) and v (N, G, 0, E)."""
        v = v if self.value_map is not None else v[..., :0]
        slots = 0 if max_length is None else self._count(max_length)
        return Tokens.empty(k, v, slots, 1, []).state(k.dtype)

    def forward(self, chunk: Chunk, keys: Tokens, state: State) -> tuple[Tokens, State]:
        """All summaries after the chunk, of tokens among `keys`, and the state to keep them."""
        new = self._new(chunk, keys)
        if not chunk.cached:
            return new, {}
        assert chunk.context.cache is not None
        old = Tokens.of(state)
        old = old.first(min(old.slots, self._count(chunk.seen)))
        summaries = old.append(new)
        most = chunk.context.cache.max_length
        slots = None if most is None else self._count(most)
        return summaries, summaries.keep(summaries.filled, slots).state(old.k.dtype)

    def unfinished(self, chunk: Chunk, j: Tensor) -> Tensor:
        """Which of the keys j (N, P, S) a later summary will need."""
        return j >= summary_count(chunk.next, self.size, self.stride) * self.stride

    def _count(self, length: int) -> int:
        """Complete summaries of `length` tokens."""
        return max(0, (length - self.size) // self.stride + 1)

    def _new(self, chunk: Chunk, keys: Tokens) -> Tokens:
        """The summaries that the chunk's tokens complete."""
        first = summary_count(chunk.sequences.offsets, self.size, self.stride)
        most = min(chunk.sequences.length // self.stride + 1, self._count(chunk.horizon))
        span = (most - 1) * self.stride + self.size if most else 0
        # Where heads hold different tokens they still agree on the unfinished blocks.
        slot = keys.locate(first * self.stride, span)
        index = first[:, None] + torch.arange(most, device=slot.device)
        ends = (index * self.stride + self.size - 1)[:, None]
        ends = ends.masked_fill(ends >= chunk.next, -1)
        k = self.key_map(self._blocks(keys.k, slot))
        v = k[..., :0]
        if self.value_map is not None:
            v = self.value_map(self._blocks(keys.v, slot))
        return Tokens(k, v, ends, {})

    def _blocks(self, x: Tensor, slot: Tensor) -> Tensor:
        """The blocks (N, G, M, size, D) of the tokens in the slots (N, P, span)."""
        rows = take_rows(x, slot.clamp(min=0))
        if not slot.shape[-1]:
            return rows.new_zeros(*rows.shape[:2], 0, self.size, rows.shape[-1])
        return rows.unfold(2, self.size, self.stride).transpose(-1, -2)


@dataclass(frozen=True)
class SummaryWeights:
    """Weights (N, H, T, S) on summaries of `size` tokens that end at `ends` (N, 1, S)."""

    weights: Tensor
    ends: Tensor
    size: int


class BlockSelector(nn.Module):
    """The blocks that each query of a KV head reads. State: summaries of its own, if it has any."""

    def __init__(self, keep: Blocks, head_dim: int) -> None:
        super().__init__()
        self.keep = keep
        self.summaries = None
        if keep.score != "compressed":
            rule = MlpMap() if keep.score == "mlp" else MeanMap()
            self.summaries = Summaries(keep.size, keep.size, rule, head_dim)

    def forward(
        self, chunk: Chunk, keys: Tokens, state: State, beside: SummaryWeights | None
    ) -> tuple[Tensor, Tensor, State]:
        """Which blocks are chosen (N, G, T, blocks), from which scores, and the new state.

        beside: the weights of the compressed branch, for score=compressed.
        """
        keep, groups = self.keep, keys.k.shape[1]
        if self.summaries is not None:
            beside, state = self._own_weights(self.summaries, chunk, keys, state)
        assert beside is not None, "score=compressed without a compressed branch"
        blocks = (chunk.horizon - 1) // keep.size + 1
        overlap = reference.summary_overlap(beside.ends, beside.size, keep.size, blocks)
        scores = reference.block_scores(beside.weights, overlap, groups)
        current = chunk.t // keep.size
        chosen = reference.select_blocks(
            scores.detach(), current, keep.top, keep.forced_first, keep.forced_last
        )
        return chosen, scores, state

    def _own_weights(
        self, maker: Summaries, chunk: Chunk, keys: Tokens, state: State
    ) -> tuple[SummaryWeights, State]:
        """softmax(q . summary * scale), whatever else the layer's softmax has."""
        summaries, state = maker(chunk, keys, state)
        plain = replace(chunk, rule=SoftmaxRule(chunk.rule.scale))
        weights = plain.weights(summaries, chunk.past(summaries))
        return SummaryWeights(weights, summaries.positions, self.keep.size), state
