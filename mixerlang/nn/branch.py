"""One softmax of attention: what its queries see, and what later queries may still see."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..kernels.attention.reference import straight_through_blocks
from ..kernels.decode.layout import Layout
from . import fused
from .blocks import BlockSelector, Summaries, SummaryWeights
from .call import Call
from .chunk import Chunk, weighted
from .fused import Fused
from .keeps import Blocks, Compressed, Full, Keep, leaves
from .mixer import State
from .route import Route, layout, route
from .store import Tokens, nest, scoped
from .visibility import Extent, extent, retained, visible


@dataclass(frozen=True)
class Held:
    """What a branch answers from.

    keys: the tokens held so far, then the new ones. state: its own. scores: its own, of these keys,
    if it keeps any. beside: the weights of the compressed branch next to it, if there is one.
    """

    keys: Tokens
    state: State
    scores: Tensor | None
    beside: SummaryWeights | None


@dataclass(frozen=True)
class Seen:
    """What a branch answers to a chunk.

    out: (N, H, T, E). With a cache also retained: (N, P, S) bool, the keys that it may still need;
    scores: (N, P, S), what it knows of them, if it keeps any; state: its own. summary: the weights
    of a compressed branch, for `blocks(score=compressed)` beside it.
    """

    out: Tensor
    retained: Tensor | None = None
    scores: Tensor | None = None
    state: State | None = None
    summary: SummaryWeights | None = None


class Branch(nn.Module):
    """A keep without `gated` and `by_head`, over the tokens that its layer holds."""

    keep: Keep
    extent: Extent
    evicts: bool = False
    """Whether KV heads hold different tokens, chosen by scores that are kept with them."""
    reads_raw_keys: bool = False
    """Whether those scores are of keys before positions."""
    held: Layout | None = None
    """What a cache of the kernels holds for it."""
    planned: Route
    without_eviction: Route

    def new_state(self, k: Tensor, v: Tensor, max_length: int | None) -> State:
        """Its own state, for tokens like k (N, G, 0, D) and v (N, G, 0, E)."""
        return {}

    def forward(self, chunk: Chunk, held: Held) -> Seen:
        """In plain PyTorch, over a store of tokens."""
        raise TypeError(f"{type(self).__name__} has no forward")

    # ---------------------------------------------------------------------- through the kernels

    def plan(self, head_dim: int, value_dim: int, plain: bool) -> None:
        """Look up once what runs it. plain: whether its softmax is that of PyTorch's attention."""
        self.planned = route(self.keep, head_dim, value_dim, plain)
        self.held = None if self.planned.op == "eager" else layout(self.keep)
        self.without_eviction = route(Full(), head_dim, value_dim, plain)

    def route(self, call: Call) -> Route:
        """What runs it without a cache."""
        return self.planned

    def fused(self, call: Call) -> Fused:
        """Attention among the tokens of a call alone: where `route` is not eager."""
        return fused.over_reach(call, self.route(call))


class SetBranch(Branch):
    """A set expression over positions and chosen blocks."""

    def __init__(self, keep: Keep, head_dim: int) -> None:
        super().__init__()
        self.keep = keep
        blocks = [leaf for leaf in leaves(keep) if isinstance(leaf, Blocks)]
        self.selectors = nn.ModuleList(BlockSelector(leaf, head_dim) for leaf in blocks)
        self.extent = extent(keep)
        for leaf in blocks:
            self.extent = self.extent | Extent(leaf.size, 0)  # a block that is not complete yet

    def new_state(self, k: Tensor, v: Tensor, max_length: int | None) -> State:
        state: State = {}
        for name, maker in self._makers().items():
            state |= nest(name, maker.new_state(k, v, max_length))
        return state

    def forward(self, chunk: Chunk, held: Held) -> Seen:
        keys = held.keys
        if self.keep == Full():
            return Seen(chunk.attend_all(keys), keys.filled, state={})
        j = keys.positions.unsqueeze(-2)
        chosen, learned = [], []
        new_state: State = {}
        for index, selector in enumerate(self.selectors):
            assert isinstance(selector, BlockSelector)
            own = scoped(str(index), held.state)
            blocks, block_scores, own = selector(chunk, keys, own, held.beside)
            chosen.append(blocks)
            new_state |= nest(str(index), own)
            if self.training and selector.keep.score == "mlp":
                learned.append((block_scores, selector.keep.size))
        weights = chunk.weights(
            keys, visible(self.keep, chunk.t, j, iter(chosen)) & chunk.past(keys)
        )
        for block_scores, size in learned:
            weights = straight_through_blocks(weights, block_scores, j, size)
        out = weighted(weights, keys.v)
        return Seen(out, self._retained(chunk, keys), state=new_state)

    def _retained(self, chunk: Chunk, keys: Tokens) -> Tensor | None:
        if not chunk.cached:
            return None
        needed = retained(self.keep, keys.positions, chunk.next - 1)
        for maker in self._makers().values():
            needed = needed | maker.unfinished(chunk, keys.positions)
        return needed & keys.filled

    def _makers(self) -> dict[str, Summaries]:
        return {
            str(index): selector.summaries
            for index, selector in enumerate(self.selectors)
            if isinstance(selector, BlockSelector) and selector.summaries is not None
        }


class CompressedBranch(Branch):
    """Summaries of blocks in place of their tokens; of these only the unfinished are held."""

    def __init__(self, keep: Compressed, head_dim: int, value_dim: int) -> None:
        super().__init__()
        self.keep = keep
        self.summaries = Summaries(keep.size, keep.step, keep.map, head_dim, value_dim)
        self.extent = extent(keep)

    def new_state(self, k: Tensor, v: Tensor, max_length: int | None) -> State:
        return self.summaries.new_state(k, v, max_length)

    def forward(self, chunk: Chunk, held: Held) -> Seen:
        summaries, state = self.summaries(chunk, held.keys, held.state)
        weights = chunk.weights(summaries, chunk.past(summaries))
        needed = self.summaries.unfinished(chunk, held.keys.positions) & held.keys.filled
        return Seen(
            weighted(weights, summaries.v),
            needed,
            state=state,
            summary=SummaryWeights(weights, summaries.positions, self.summaries.size),
        )
