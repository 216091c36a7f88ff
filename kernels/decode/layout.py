"""What a cache of fixed size holds, as data: the analyzer reads its bytes without torch.

Shapes: N sequences, G KV heads, D channels of keys, E of values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

KINDS = ("plain", "learned", "norm", "random")
PERIOD = 64
"""Tokens between runs of the learned scorer, at most."""

ROW_BLOCKS = 32
"""Counters per KV head: rows of queries that one step may bring, over those of a program."""


class Array(NamedTuple):
    """A tensor of the state. kind: `cache`, the cache's own dtype; `score`, float32; or `index`,
    int32. fill: what stands in it at first."""

    shape: tuple[int, ...]
    kind: str
    fill: float = 0


@dataclass(frozen=True)
class Layout:
    """Which tokens a group of KV heads holds, and where.

    A query at t sees j <= t iff (t - j < window and (t - j) mod rate = 0), or j < sinks, or
    (strided and (t - j) mod strided = 0), or j is one of the `budget - sinks` best of the tokens
    that left the window (kinds other than plain). Window None: all of the past.

    kind: `plain`, by position alone; `learned`, logits of a scorer that reads `lookahead` tokens
    ahead, candidates above 0; `norm`, the smallest keys before positions; `random`, a hash of the
    position. span: new tokens per sequence that one step takes at most, and that can be taken back.

    Entries of k and v: a ring, where position p lies at p mod ring, then `slots` for tokens outside
    the window, the sinks first. Where everything is held the ring is as long as sequences may get.
    """

    window: int | None = None
    budget: int = 0
    sinks: int = 0
    kind: str = "plain"
    rate: int = 1
    strided: int = 0
    lookahead: int = 0
    span: int = 8

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str | None:
        """Which constraint does not hold, with the way out."""
        if self.kind not in KINDS:
            return f"kind is {self.kind}: one of {', '.join(KINDS)}"
        if self.window is not None and self.window < 1:
            return f"window is {self.window}: a query sees at least itself, nearest 1"
        if self.span < 1 or self.rate < 1 or min(self.sinks, self.strided, self.lookahead) < 0:
            return f"span and rate are 1 or more; sinks, strided, lookahead 0 or more: {self}"
        if not self.evicts:
            return None
        if self.window is None or self.strided or self.rate > 1:
            return f"kind {self.kind} goes with a window alone"
        if self.budget < max(self.sinks, 1):
            return f"budget is {self.budget}: nearest {max(self.sinks, 1)}"
        if self.kind == "learned" and self.window < self.lookahead + 3 * self.span - 1:
            span = (self.window - self.lookahead + 1) // 3
            way_out = f"take span {span}" if span else f"nearest window {self.lookahead + 2}"
            return (
                f"a window of {self.window} is too short for steps of {self.span} tokens, as scores"
                f" read {self.lookahead} tokens ahead: {way_out}"
            )
        return None

    # -------------------------------------------------------------------------------------- sizes

    @property
    def evicts(self) -> bool:
        """Whether KV heads hold different tokens, chosen by scores."""
        return self.kind != "plain"

    @property
    def everything(self) -> bool:
        """Whether all of the past is held, so that sequences are bounded by the cache."""
        return self.window is None or self.strided > 0

    @property
    def slots(self) -> int:
        """Entries beside the ring: tokens held outside the window."""
        if self.everything:
            return 0
        return self.budget if self.evicts else self.sinks

    @property
    def contested(self) -> int:
        """Slots that tokens compete for."""
        return self.slots - self.sinks if self.evicts else 0

    @property
    def period(self) -> int:
        """Tokens that the scorer takes at a time.

        After a step that began with `seen` tokens, those before seen - lookahead - period + 1 have
        their score; the next step begins up to `span` tokens later and ends as many on, and until
        then no token without a score may leave the window.
        """
        assert self.window is not None
        return min(PERIOD, self.window - self.lookahead - 2 * self.span + 1)

    @property
    def raw_rows(self) -> int:
        """Keys before positions that the scorer may still read: a ring of its own, (G, rows, D)."""
        if self.kind != "learned":
            return 0
        return self.period - 1 + 2 * self.lookahead + 2 * self.span

    def ring(self, max_length: int | None) -> int:
        """Entries of the ring, for sequences of up to `max_length` tokens (None: any): where these
        are shorter than the window, it never comes round."""
        if not self.everything:
            assert self.window is not None
            entries = self.window + self.span
            if max_length is not None and max_length < self.window:
                entries = max_length
            return max(entries, self.raw_rows)
        if max_length is None:
            raise ValueError("a cache that holds all of the past needs max_length")
        return max_length

    # ------------------------------------------------------------------------------------- arrays

    def arrays(
        self, batch: int, kv_heads: int, head_dim: int, value_dim: int, max_length: int | None
    ) -> dict[str, Array]:
        """The tensors of a state, by name.

        k, v: the entries. position: of the tokens in slots, -1 where one is empty. z: scores, of
        entries of ring and slots. folded: how many tokens have been taken out of the window.
        raw_k, scored, due: the scorer's rows, how many tokens have a score, and the first of those
        that get theirs in this step, -1 if none does. arrivals: the parts of a step's attention
        that are there, 0 between steps.
        """
        lead = (batch, kv_heads)
        entries = self.ring(max_length) + self.slots
        found = {
            "k": Array((*lead, entries, head_dim), "cache"),
            "v": Array((*lead, entries, value_dim), "cache"),
            "arrivals": Array((*lead, ROW_BLOCKS), "index"),
        }
        if self.slots:
            found["position"] = Array((*lead, self.slots), "index", -1)
            found["folded"] = Array(lead, "index")
        if self.evicts:
            found["z"] = Array((*lead, entries), "score", -math.inf)
        if self.kind == "learned":
            found["raw_k"] = Array((*lead, self.raw_rows, head_dim), "cache")
            found["scored"] = Array((batch,), "index")
            found["due"] = Array((batch,), "index", -1)
        return found

    def nbytes(
        self,
        batch: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int,
        max_length: int | None,
        element: int,
    ) -> int:
        """Bytes of a state whose cache has `element` bytes per number."""
        sizes = {"cache": element, "score": 4, "index": 4}
        arrays = self.arrays(batch, kv_heads, head_dim, value_dim, max_length)
        return sum(math.prod(array.shape) * sizes[array.kind] for array in arrays.values())
