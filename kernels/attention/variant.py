"""What an attention kernel is specialised on: numbers of the spec, and the tile that runs them.

Imports nothing but the standard library, so that checks and analysis may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..pieces import spelled

DTYPES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""What the kernels serve, and its bytes."""
MAX_HEAD_DIM = 256
MOST = 2**30
"""Of window and sinks: positions that these are added to are 32-bit integers."""
BY_KEY = ("backward_kv", "backward_gathered", "backward_held", "backward_sinks")
"""Passes whose programs own keys."""
ALIGNED = 64
"""What queries are rounded up to where blocks of them are loaded without a mask."""


class Rule(NamedTuple):
    """Which keys a query sees, and what becomes of its scores; what a call of the op says of it.

    Query t sees the keys j <= t of its sequence where t - j < window and rate divides t - j, or j
    is among the first `sinks`, or strided (unless 0) divides t - j; without a window, all of them.
    tf32: float32 products may round their factors to 10 bits.
    """

    window: int | None = None
    sinks: int = 0
    rate: int = 1
    strided: int = 0
    scale: float = 1.0
    softcap: float | None = None
    tf32: bool = False

    def problem(self) -> str | None:
        """Which constraint does not hold, with the nearest legal value."""
        if self.window is not None and self.window < 1:
            return f"window is {self.window}: a query sees at least itself, nearest 1"
        for name, least in (("sinks", 0), ("rate", 1), ("strided", 0)):
            if getattr(self, name) < least:
                return f"{name} is {getattr(self, name)}: nearest {least}"
        for name in ("window", "sinks"):
            if (getattr(self, name) or 0) > MOST:
                way_out = "a window of None is all of the past"
                return f"{name} is {getattr(self, name)}: nearest {MOST}; {way_out}"
        if self.rate != 1 and self.window is None:
            return f"rate is {self.rate} without a window: it thins out a window, nearest 1"
        for name in ("scale", "softcap"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                return f"{name} is {value}: it must be positive and finite"
        return None


@dataclass(frozen=True)
class Variant:
    """The constants and structural choices of one specialised attention.

    window: how many keys a query sees, itself included; None sees the whole past.
    sinks: how many first tokens of a sequence everyone sees.
    packed: several sequences follow one another on the token axis.
    lse_grad: the backward pass gets a gradient of the log-sum-exp too.
    intervals: keys that left the window are seen until they die, as interval lists say.
    budget: with intervals, how many of them live at a time at most; None: all of them.
    score_grad: the backward pass gives the straight-through gradient of the scores too.
    rate: of the window, keys whose distance it divides. strided: of all the past, unless 0.
    softcap: scores are bounded by it. sink_logits: each softmax has one more logit, of no value.
    slopes: scores fall with distance, by a slope per head.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    window: int | None = None
    sinks: int = 0
    packed: bool = False
    lse_grad: bool = False
    intervals: bool = False
    budget: int | None = None
    score_grad: bool = False
    rate: int = 1
    strided: int = 0
    softcap: float | None = None
    sink_logits: bool = False
    slopes: bool = False

    @property
    def ruled(self) -> bool:
        """Whether more decides than window and lists: sinks, strides, or terms of the scores."""
        scores = self.softcap is not None or self.sink_logits or self.slopes
        return scores or self.sinks > 0 or self.rate > 1 or self.strided > 0

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str | None:
        """Which constraint does not hold, with the nearest legal value."""
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            return f"{self.kv_heads} KV heads do not divide {self.heads} query heads"
        for name, dim in (("head_dim", self.head_dim), ("value_dim", self.value_dim)):
            if not 1 <= dim <= MAX_HEAD_DIM:
                nearest = min(max(dim, 1), MAX_HEAD_DIM)
                return f"{name} is {dim}: the kernels serve 1 to {MAX_HEAD_DIM}, nearest {nearest}"
        if self.intervals and (self.window is None or self.sinks):
            return f"intervals hold the sinks, and a window: not {self.sinks} and {self.window}"
        if self.budget is not None and not (self.intervals and self.budget > 0):
            return f"budget is {self.budget}: it bounds intervals, nearest 1"
        rule = (self.window, self.sinks, self.rate, self.strided, self.scale, self.softcap)
        return Rule(*rule).problem()

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def sinks_apart(self) -> bool:
        """Whether sinks lie outside of what queries see besides."""
        return self.window is not None and self.sinks > 0 and not self.strided

    def stem(self, name: str) -> str:
        """What a pass's file is called: attention_forward_h16x4_d64_w512; no two share a name."""
        parts = [f"attention_{name}", f"h{self.heads}x{self.kv_heads}", f"d{self.head_dim}"]
        if self.value_dim != self.head_dim:
            parts.append(f"e{self.value_dim}")
        parts.append("full" if self.window is None else f"w{self.window}")
        numbers = (("s", self.sinks), ("r", self.rate if self.rate > 1 else 0), ("t", self.strided))
        parts += [f"{letter}{number}" for letter, number in numbers if number]
        if self.intervals:
            parts.append("kept" if self.budget is None else f"b{self.budget}")
        if self.scale != self.head_dim**-0.5:
            parts.append(f"scale{spelled(self.scale)}")
        if self.softcap is not None:
            parts.append(f"cap{spelled(self.softcap)}")
        parts += [word for word in ("sink_logits", "slopes") if getattr(self, word)]
        if self.packed:
            parts.append("packed")
        if self.lse_grad and name == "backward_q":
            parts.append("lse")
        if self.score_grad and name == "backward_kv":
            parts.append("score")
        return "_".join(parts)


def precision(dtype: str, tf32: bool = False) -> str:
    """What float32 factors are rounded to in a product: nothing unless tf32 is asked for."""
    return "ieee" if dtype == "float32" and not tf32 else "tf32"


@dataclass(frozen=True)
class Tile:
    """How a pass is cut: rows of a program's own block, rows per step of its loop, warps, stages.

    registers: at most so many per thread, for more programs on a multiprocessor; None: no bound.
    """

    own: int
    step: int
    warps: int
    stages: int
    registers: int | None = None

    def options(self, name: str) -> dict[str, int]:
        """What a pass is told at launch: its blocks, warps, stages and bound on registers."""
        rows = ("BLOCK_K", "BLOCK_Q") if name in BY_KEY else ("BLOCK_Q", "BLOCK_K")
        options = {rows[0]: self.own, rows[1]: self.step}
        options |= {"num_warps": self.warps, "num_stages": self.stages}
        return options | ({"maxnreg": self.registers} if self.registers else {})
