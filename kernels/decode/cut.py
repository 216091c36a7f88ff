"""How a step is cut into programs, and the constants its kernels are compiled with.

Imports neither torch nor Triton, so that kernels can be built where neither is.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .layout import ROW_BLOCKS, Layout

Constant = int | float | bool | str | None

TILE = 8192
"""Numbers that a program sums values into, at most; float32, on plain cores, gets 16 rows."""

TURN = 16_384
"""Bytes of keys that a turn of the loop reads."""

MAX_SPLITS = 128

SINGLE_TILE = 4096
"""Numbers of a turn's values where there is one row: 32 for each thread, which sums them apart."""


class Plan(NamedTuple):
    """Of the attention of a step: programs per KV head, entries per turn of their loop."""

    splits: int
    block: int
    warps: int
    stages: int


class Shape(NamedTuple):
    """Of a step: T, H, G, D, E, bytes per number, and whether the cache grows with the context."""

    tokens: int
    heads: int
    kv_heads: int
    dim: int
    value_dim: int
    element: int
    grows: bool = False

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def single(self) -> bool:
        """Whether a KV head has one row to serve: products of matrices are not worth it. Over 4,096
        entries of a cache that grows they were faster all the same (.81 against .97 ms for a token
        of 24 layers on an H100)."""
        return self.group * self.tokens == 1 and not self.grows

    @property
    def wide(self) -> int:
        """Channels of a row as far as registers are concerned."""
        return padded(max(self.dim, self.value_dim, 128))

    @property
    def rows(self) -> int:
        """Rows of queries per program: new tokens times query heads of a KV head."""
        if self.single:
            return 1
        most = 16 if self.element == 4 else TILE // self.wide
        return min(most, max(16, padded(self.group * self.tokens)))

    @property
    def live_rows(self) -> int:
        """Of a program's rows, those that may be no padding."""
        return min(self.rows, padded(self.group * self.tokens))

    def together(self, plan: Plan) -> int:
        """Splits that are added up at a time: as many as 16 registers of a thread hold."""
        row = self.live_rows * max(16, padded(self.value_dim))
        most = max(1, min(32, 16 * 32 * plan.warps // row))
        return min(most, padded(plan.splits))

    @property
    def row_blocks(self) -> int:
        blocks = -(-self.group * self.tokens // self.rows)
        if blocks > ROW_BLOCKS:
            most = ROW_BLOCKS * self.rows // self.group
            raise ValueError(
                f"{self.tokens} new tokens a step of {self.group} query heads to a KV head are too"
                f" many: nearest {most} tokens"
            )
        return blocks


@cache
def choose(shape: Shape, batch: int, entries: int, processors: int) -> Plan:
    """A cut for caches of so many entries on a GPU of so many multiprocessors.

    Two programs to a multiprocessor, but each with two and a half turns to read: as measured on an
    H100, below that adding up costs more than it gains.
    """
    width = padded(max(shape.dim, shape.value_dim)) * shape.element
    block = max(16, min(64, TURN // width))
    wanted = 2 * processors // (batch * shape.kv_heads * shape.row_blocks)
    splits = max(1, min(wanted, 2 * entries // (5 * block), MAX_SPLITS))
    if shape.single:
        width = padded(max(shape.dim, shape.value_dim))
        return Plan(splits, max(16, min(64, SINGLE_TILE // width)), 4, 3)
    if shape.element == 4:
        return Plan(splits, max(16, block // 2), 8, 2)
    return Plan(splits, block, 8 if shape.rows * shape.wide >= TILE else 4, 3)


def update_constants(
    layout: Layout, shape: Shape, ring: int, early: bool
) -> dict[str, Constant]:
    """Of update.decode_update. early: whether the GPU may start a launch before the one before it
    is over (Hopper and later)."""
    slots = layout.slots
    return {
        "KV_HEADS": shape.kv_heads,
        "TOKENS": shape.tokens,
        "PADDED_TOKENS": padded(shape.tokens),
        "DIM": shape.dim,
        "PADDED_DIM": padded(shape.dim),
        "VALUE_DIM": shape.value_dim,
        "PADDED_VALUE_DIM": padded(shape.value_dim),
        "WINDOW": layout.window or 0,
        "RING": 0 if layout.everything else ring,
        "SLOTS": slots,
        "PADDED_SLOTS": padded(slots),
        "SINKS": layout.sinks,
        "FLOOR": 0.0 if layout.kind == "learned" else float("-inf"),
        "RAW_ROWS": layout.raw_rows,
        "LOOKAHEAD": layout.lookahead,
        "PERIOD": layout.period if layout.kind == "learned" else 0,
        "HASHED": layout.kind == "random" and layout.contested > 0,
        "EARLY": early,
    }


def update_warps(layout: Layout) -> int:
    """One, whose lanes compare slots without a barrier, as long as its registers hold them."""
    return max(1, min(8, padded(layout.slots) // 512))


def attend_constants(
    layout: Layout,
    shape: Shape,
    ring: int,
    scale: float,
    softcap: float | None,
    plan: Plan,
    early: bool,
) -> dict[str, Constant]:
    """Of attend.decode_attend, or of single.decode_attend_single."""
    shared: dict[str, Constant] = {
        "KV_HEADS": shape.kv_heads,
        "ROW_BLOCKS": ROW_BLOCKS,
        "DIM": shape.dim,
        "PADDED_DIM": max(16, padded(shape.dim)),
        "VALUE_DIM": shape.value_dim,
        "PADDED_VALUE_DIM": max(16, padded(shape.value_dim)),
        "WINDOW": layout.window or 0,
        "RING": 0 if layout.everything else ring,
        "RATE": layout.rate,
        "STRIDED": layout.strided,
        "SINKS": layout.sinks,
        "SLOTS": layout.slots,
        "SCALE": scale,
        "SOFTCAP": softcap or 0.0,
        "SPLITS": plan.splits,
        "TOGETHER": shape.together(plan),
        "BLOCK": plan.block,
        "EARLY": early,
    }
    if shape.single:
        return shared | {"STAGES": plan.stages}
    return shared | {
        "GROUP": shape.group,
        "TOKENS": shape.tokens,
        "ROWS": shape.rows,
        "LIVE_ROWS": shape.live_rows,
        "PRECISION": "ieee" if shape.element == 4 else "tf32",
    }


def padded(width: int) -> int:
    """The next power of two."""
    return 1 << max(width - 1, 0).bit_length()
