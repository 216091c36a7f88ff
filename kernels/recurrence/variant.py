"""What a recurrence kernel is specialised on: numbers of the spec.

Imports nothing but the standard library, so that checks and analysis may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..pieces import Piece, pieces, spelled

CHUNK = 64
"""Tokens that are multiplied at once."""
MAX_DIM = 256
"""Channels of a head of q and k, and of v."""
DECAYS = ("none", "scalar", "vector")


@dataclass(frozen=True)
class Variant:
    """The constants and structural choices of one specialised recurrence.

    heads: of q and k; value_heads: of v, a multiple. decay: per token not at all, per value head,
    or per key channel. delta: whether a token writes what the state lacks of its value, in place
    of its value. step: whether what it writes is scaled by a number of its own.
    """

    heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    scale: float
    decay: str = "none"
    delta: bool = False
    step: bool = False

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str | None:
        """Which constraint does not hold, with the nearest legal value."""
        if self.heads < 1 or self.value_heads % self.heads or self.value_heads < 1:
            return f"{self.heads} heads do not divide {self.value_heads} value heads"
        for name, dim in (("key_dim", self.key_dim), ("value_dim", self.value_dim)):
            if not 1 <= dim <= MAX_DIM:
                nearest = min(max(dim, 1), MAX_DIM)
                return f"{name} is {dim}: the kernels serve 1 to {MAX_DIM}, nearest {nearest}"
        if self.decay not in DECAYS:
            return f"decay is {self.decay}: one of {', '.join(DECAYS)}"
        return None

    @property
    def group(self) -> int:
        """Value heads per head of q and k."""
        return self.value_heads // self.heads

    def stem(self, name: str) -> str:
        """What a pass's file is called: recurrence_scan_h16x16_k128_v128_scalar_delta_step; no two
        share a name."""
        parts = [f"recurrence_{name}", f"h{self.heads}x{self.value_heads}"]
        parts += [f"k{self.key_dim}", f"v{self.value_dim}", self.decay]
        parts += ["delta"] * self.delta + ["step"] * self.step
        if self.scale != self.key_dim**-0.5:
            parts.append(f"scale{spelled(self.scale)}")
        return "_".join(parts)


def unserved(
    key_dim: int, value_dim: int, normalize: bool = False, decay: str = "scalar"
) -> str | None:
    """Why the kernels do not run a recurrence of such heads, if so."""
    if decay == "vector":
        return "a decay for each channel: its kernels gave wrong results on an H100 in heads of 100"
    if max(key_dim, value_dim + normalize) <= MAX_DIM:
        return None
    beside = " and one for the normalizer" if normalize else ""
    told = f"heads of {key_dim} by {value_dim} channels{beside}"
    return f"{told}: the kernels of the recurrence serve up to {MAX_DIM}"


def cut(dim: int, most: int) -> tuple[Piece, ...]:
    """Channels cut into powers of two of at most `most`, largest first: 200 = 64 + 64 + 64 + 8 of
    16."""
    cuts: list[tuple[int, int, int]] = []
    for piece in pieces(dim):
        width = min(piece.width, most)
        for start in range(piece.start, piece.start + piece.used, width):
            cuts.append((start, width, min(width, dim - start)))
    suffixes = [""] if len(cuts) == 1 else [str(index) for index in range(len(cuts))]
    return tuple(Piece(suffix, *each) for suffix, each in zip(suffixes, cuts, strict=True))
