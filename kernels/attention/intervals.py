"""Eviction as intervals: when each token leaves, and who is in the slots at the head of a segment.

Shapes: B sequences (1 if packed), G KV heads, T tokens, C = ceil(T / SEGMENT) segments. Positions
and query indices count on the token axis of the call, whatever sequence they belong to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SEGMENT = 128
"""Tokens between snapshots."""

GRAIN = 64
"""Entries of a snapshot whose first death is told together."""

NEVER = 2**31 - 1
"""The death time of a token that stays."""


class Intervals(NamedTuple):
    """Which keys queries see: key j by queries j <= t < death[j], of its sequence.

    With a window of w, death[j] >= j + w: a token leaves the window at query j + w and lives on
    only in a slot. Where it dies later, or never, it is called kept.

    death: (B, G, T) int32. kept: (B, G, T) int32, the positions of kept tokens, ascending; what
    stands from their number on is unspecified. counts: (B, G, C + 1) int32, how many kept tokens
    lie before c * SEGMENT.
    snapshots: (B, G, C, budget) int32 and alive: (B, G, C) int32, under a budget: row c holds the
    alive[c] tokens j < c * SEGMENT of the sequence of token c * SEGMENT - 1 that are in slots once
    all tokens before c * SEGMENT have left the window (death > c * SEGMENT - 1 + w), ascending;
    the rest of a row is unspecified. Row 0 is empty. None without a budget: then nothing that is
    kept ever dies, and `kept` up to counts[c] serves in their place.

    A block of queries from t0 on sees: with c = max(0, (t0 - w) // SEGMENT), the keys from
    c * SEGMENT on under t < death, and of those before, the ones listed in row c (without a budget:
    the kept before c * SEGMENT), in the sequence of query t0 alone: queries of later sequences
    start after c * SEGMENT.
    """

    death: Tensor
    kept: Tensor
    counts: Tensor
    snapshots: Tensor | None
    alive: Tensor | None
