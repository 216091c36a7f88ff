"""What attention keeps, as data: for the query at t, which keys j <= t of which KV head it sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Full:
    """All keys j <= t."""


@dataclass(frozen=True)
class Window:
    """t - j < size: the last `size` tokens, the query's own included."""

    size: int


@dataclass(frozen=True)
class Sinks:
    """j < count: the first tokens of each sequence."""

    count: int


@dataclass(frozen=True)
class Strided:
    """(t - j) mod stride = 0."""

    stride: int


@dataclass(frozen=True)
class Dilated:
    """A window with holes: t - j < size * rate and (t - j) mod rate = 0."""

    size: int
    rate: int


@dataclass(frozen=True)
class Cnn:
    """LTE's scorer: per KV head, [k; v] -> D -> D/2 -> ... -> 1 by dilated convolutions."""

    kernels: tuple[int, ...] = (3, 3, 3)
    dilations: tuple[int, ...] = (2, 2, 2)
    dropout: float = 0.1

    @property
    def reaches(self) -> tuple[int, ...]:
        """How many tokens ahead each layer reads: (kernel - 1) / 2 * dilation."""
        pairs = zip(self.kernels, self.dilations, strict=True)
        return tuple((kernel - 1) // 2 * dilation for kernel, dilation in pairs)

    @property
    def lookahead(self) -> int:
        """Future tokens that a score reads."""
        return sum(self.reaches)


@dataclass(frozen=True)
class Learned:
    """Learned token eviction (LTE): at most `budget` kept tokens per KV head."""

    budget: int
    sinks: int = 4
    scorer: Cnn = Cnn()
    capped: bool = False


@dataclass(frozen=True)
class Evict:
    """Training-free eviction to `budget` tokens per KV head; policy tova, h2o, norm or random."""

    policy: str
    budget: int


@dataclass(frozen=True)
class Blocks:
    """Query-aware blocks: the `top` blocks of `size` tokens; score mean, mlp or compressed."""

    size: int
    top: int
    forced_first: int = 1
    forced_last: int = 2
    score: str = "mean"


@dataclass(frozen=True)
class MeanMap:
    """The mean of the block's keys (and of its values)."""


@dataclass(frozen=True)
class MlpMap:
    """A learned two-layer map over the block, with intra-block positions."""

    expand: int = 1


@dataclass(frozen=True)
class Compressed:
    """Summaries of blocks in place of tokens: complete blocks alone, `size` every `stride`."""

    size: int
    stride: int | None = None
    map: MeanMap | MlpMap = MeanMap()

    @property
    def step(self) -> int:
        """Tokens between summaries."""
        return self.stride or self.size


@dataclass(frozen=True)
class Union:
    """What any part sees."""

    parts: tuple[Keep, ...]


@dataclass(frozen=True)
class Intersection:
    """What every part sees."""

    parts: tuple[Keep, ...]


@dataclass(frozen=True)
class GatedKeep:
    """Separate softmaxes over the same k and v, mixed by sigmoid(Linear(x)) per query head."""

    parts: tuple[Keep, ...]


@dataclass(frozen=True)
class ByHead:
    """One keep per KV head."""

    keeps: tuple[Keep, ...]


Keep = (
    Full
    | Window
    | Sinks
    | Strided
    | Dilated
    | Learned
    | Evict
    | Blocks
    | Compressed
    | Union
    | Intersection
    | GatedKeep
    | ByHead
)


def leaves(keep: Keep) -> list[Keep]:
    """The parts of an expression of `|` and `&`, left to right."""
    if isinstance(keep, Union | Intersection):
        return [leaf for part in keep.parts for leaf in leaves(part)]
    return [keep]
