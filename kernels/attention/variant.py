"""What an attention kernel is specialised on: numbers of the spec, and the tile that runs them.

Imports nothing but the standard library, so that checks and analysis may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("bfloat16", "float16", "float32")
MAX_HEAD_DIM = 256
SMALLEST_PIECE = 16  # a matrix unit's inner dimension


@dataclass(frozen=True)
class Piece:
    """Channels [start, start + width) of a head; those from `start + used` on are padding."""

    suffix: str
    start: int
    width: int
    used: int

    @property
    def padded(self) -> bool:
        return self.used < self.width


@dataclass(frozen=True)
class Variant:
    """The constants and structural choices of one specialised attention.

    window: how many keys a query sees, itself included; None sees the whole past.
    sinks: how many first tokens of a sequence everyone sees.
    packed: several sequences follow one another on the token axis.
    lse_grad: the backward pass gets a gradient of the log-sum-exp too.
    tf32: float32 products may round their factors to 10 bits.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    scale: float
    window: int | None = None
    sinks: int = 0
    packed: bool = False
    lse_grad: bool = False
    tf32: bool = False

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
        if self.dtype not in DTYPES:
            return f"dtype is {self.dtype}: the kernels serve {', '.join(DTYPES)}"
        if self.window is not None and self.window < 1:
            return f"window is {self.window}: a query sees at least itself, nearest 1"
        if self.sinks < 0:
            return f"sinks is {self.sinks}: nearest 0"
        if not self.scale > 0:
            return f"scale is {self.scale}: it must be positive"
        return None

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def reach(self) -> str:
        """Window and sinks, as part of a file's name."""
        window = "full" if self.window is None else f"w{self.window}"
        return f"{window}_s{self.sinks}" if self.sinks else window


def pieces(dim: int) -> tuple[Piece, ...]:
    """A head cut into power-of-two widths, largest first: 96 = 64 + 32, 100 = 64 + 32 + 16."""
    cuts: list[tuple[int, int, int]] = []
    start = 0
    while start < dim:
        rest = dim - start
        width = max(SMALLEST_PIECE, 1 << (rest.bit_length() - 1))
        cuts.append((start, width, min(width, rest)))
        start += width
    suffixes = [""] if len(cuts) == 1 else [str(index) for index in range(len(cuts))]
    return tuple(Piece(suffix, *cut) for suffix, cut in zip(suffixes, cuts, strict=True))


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

    @property
    def options(self) -> dict[str, int]:
        """What Triton is told at launch."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return options | ({"maxnreg": self.registers} if self.registers else {})
