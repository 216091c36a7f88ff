"""What attention keeps: for the query at t, which keys j <= t of which KV head are visible."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Report, Term

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]


class Keep(Term):
    kind: ClassVar[str] = "keep"


class Full(Keep):
    """All keys j <= t."""

    word: ClassVar[str] = "full"


class Window(Keep):
    """t - j < size: the last `size` tokens, the query's own included."""

    word: ClassVar[str] = "window"
    size: Positive = Field(description="Tokens seen, the query's own included.")


class Sinks(Keep):
    """j < count: the first tokens of each sequence (StreamingLLM, 2309.17453)."""

    word: ClassVar[str] = "sinks"
    count: Positive = Field(description="First tokens of each sequence that stay visible.")


class Strided(Keep):
    """(t - j) mod stride = 0 (Sparse Transformer, 1904.10509)."""

    word: ClassVar[str] = "strided"
    stride: Positive = Field(description="Distance between visible tokens.")


class Dilated(Keep):
    """A window with holes: t - j < size * rate and (t - j) mod rate = 0."""

    word: ClassVar[str] = "dilated"
    size: Positive = Field(description="Tokens seen, the query's own included.")
    rate: Positive = Field(description="Distance between seen tokens.")


class Scorer(Term):
    kind: ClassVar[str] = "scorer"


class Cnn(Scorer):
    """LTE's scorer: per KV head, [k; v] (2D) -> D -> D/2 -> ... -> 1 by dilated convolutions."""

    word: ClassVar[str] = "cnn"
    kernels: tuple[Positive, ...] = Field((3, 3, 3), description="Odd kernel sizes, one a layer.")
    dilations: tuple[Positive, ...] = Field((2, 2, 2), description="Dilations, one a layer.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropped before each layer in training.")

    def lookahead(self) -> int:
        """Future tokens that a score reads: sum of (kernel - 1) / 2 * dilation."""
        pairs = zip(self.kernels, self.dilations, strict=True)
        return sum((kernel - 1) // 2 * dilation for kernel, dilation in pairs)

    def check(self, report: Report) -> None:
        span = self.origin.of("kernels")
        if not 1 <= len(self.kernels) <= 8:
            report("MX302", span, "a scorer has 1 to 8 layers")
        if len(self.kernels) != len(self.dilations):
            report(
                "MX302",
                span,
                f"{len(self.kernels)} kernels need as many dilations, not {len(self.dilations)}",
            )
        if any(kernel % 2 == 0 or kernel > 63 for kernel in self.kernels):
            report("MX302", span, f"kernels must be odd and below 64, not {list(self.kernels)}")


class Learned(Keep):
    """Learned token eviction (LTE): at most `budget` kept tokens per KV head (2510.20787)."""

    word: ClassVar[str] = "learned"
    budget: Positive = Field(description="Slots per KV head, the sinks inside.")
    sinks: Count = Field(4, description="First tokens of each sequence, never evicted.")
    scorer: Scorer = Field(default_factory=Cnn, description="What scores a token.")
    capped: bool = Field(False, description="Enforce the budget in training too.")

    def check(self, report: Report) -> None:
        if self.sinks > self.budget:
            report(
                "MX404",
                self.origin.of("sinks" if "sinks" in self.origin.fields else "budget"),
                f"sinks are pinned inside the budget: {self.sinks} sinks, budget {self.budget}",
                help=f"raise the budget to {self.sinks} or more, or keep fewer sinks",
            )


class Evict(Keep):
    """Training-free eviction to `budget` tokens per KV head."""

    word: ClassVar[str] = "evict"
    policy: Literal["tova", "h2o", "norm", "random"] = Field(
        description=(
            "tova: least attention from the newest query (2401.06104); h2o: least attention in "
            "sum (2306.14048); norm: largest key norm (2406.11430); random: a hash of the position."
        )
    )
    budget: Positive = Field(description="Tokens kept beside the window; alone, in all.")


class Blocks(Keep):
    """Query-aware blocks: the `top` blocks of `size` tokens (MoBA 2502.13189, NSA 2502.11089).

    Per KV head. Block scores are softmax(q . summary * scale) over the complete blocks, summed
    over the query heads of the group; equal scores go to the lower index.
    """

    word: ClassVar[str] = "blocks"
    size: Positive = Field(description="Tokens per block.")
    top: Positive = Field(description="Blocks chosen per query and KV head, forced ones included.")
    forced_first: Count = Field(1, description="First blocks that are always chosen.")
    forced_last: Positive = Field(
        2, description="Last blocks that are always chosen, the current one included."
    )
    score: Literal["mean", "mlp", "compressed", "landmark"] = Field(
        "mean",
        description=(
            "Block summary: mean of its keys, a learned mlp, or the probabilities of the "
            "`compressed` branch beside it in `gated` (NSA), summed over what overlaps the block."
        ),
    )

    def check(self, report: Report) -> None:
        forced = self.forced_first + self.forced_last
        if self.top < forced:
            report(
                "MX404",
                self.origin.of("top"),
                f"top includes the forced blocks: top={self.top}, forced {forced}",
                help=f"choose top={forced} or more, or force fewer blocks",
            )
        if self.score == "landmark":
            report("MX501", self.origin.of("score"), "score=landmark is not implemented yet",
                   help="use score=mean or score=mlp")


class SummaryMap(Term):
    kind: ClassVar[str] = "map"


class MeanMap(SummaryMap):
    """The mean of the block's keys (and of its values)."""

    word: ClassVar[str] = "mean"


class MlpMap(SummaryMap):
    """A learned two-layer map over the block, with intra-block positions (NSA, 2502.11089)."""

    word: ClassVar[str] = "mlp"
    expand: Positive = Field(1, le=16, description="Hidden width over head_dim.")


class Compressed(Keep):
    """Summaries of blocks in place of tokens: complete blocks alone, `size` every `stride`."""

    word: ClassVar[str] = "compressed"
    size: Positive = Field(description="Tokens per summary.")
    stride: Positive | None = Field(None, description="Tokens between summaries; default size.")
    map: SummaryMap = Field(default_factory=MeanMap, description="How a block is summarised.")

    def check(self, report: Report) -> None:
        if self.stride is not None and self.stride > self.size:
            report(
                "MX302",
                self.origin.of("stride"),
                f"stride {self.stride} leaves gaps between summaries of {self.size} tokens",
                help=f"choose a stride of at most {self.size}",
            )


class Union(Keep):
    """a | b: what any part sees. Written with the operator, never by name."""

    parts: tuple[Keep, ...]


class Intersection(Keep):
    """a & b: what every part sees. Written with the operator, never by name."""

    parts: tuple[Keep, ...]


class GatedKeep(Keep):
    """Separate softmaxes over the same k and v, mixed by sigmoid(Linear(x)) per query head."""

    word: ClassVar[str] = "gated"
    parts: tuple[Keep, ...] = Field(description="The branches.")


class ByHead(Keep):
    """One keep per KV head (retrieval heads, 2404.15574)."""

    word: ClassVar[str] = "by_head"
    keeps: tuple[Keep, ...] = Field(description="One keep per KV head.")


class ReuseKeep(Keep):
    """The indices that an earlier attention layer selected (HyLRA)."""

    word: ClassVar[str] = "reuse"
    ready: ClassVar[bool] = False
    back: Positive = Field(1, description="Which earlier attention layer, counted back.")
