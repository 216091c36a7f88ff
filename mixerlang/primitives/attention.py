"""The attention primitive: projections, positions and a keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import Field

from ..algebra import Count, greatest
from . import keep as k
from .base import Mixer, Report, Term
from .norm import Norm, Position, Rope
from .part import Part, Workload

Heads = Annotated[int, Field(ge=1, le=65_536)]
HeadDim = Annotated[int, Field(ge=1, le=65_536)]


class Reuse(Term):
    """What an earlier attention layer computed."""

    kind: ClassVar[str] = "reuse"
    word: ClassVar[str] = "reuse"
    ready: ClassVar[bool] = False
    back: Annotated[int, Field(ge=1, lt=2**31)] = Field(
        1, description="Which earlier attention layer, counted back."
    )


class Attention(Mixer):
    """Softmax attention (MHA, GQA, MQA) over the tokens that `keep` leaves visible."""

    word: ClassVar[str] = "attention"

    heads: Heads = Field(description="Query heads.")
    kv_heads: Heads | None = Field(None, description="Key and value heads; default heads.")
    head_dim: HeadDim | None = Field(None, description="Of q and k; default dim / heads.")
    value_dim: HeadDim | None = Field(None, description="Of v; default head_dim.")
    position: Position | None = Field(
        default_factory=Rope, description="How positions enter; none for NoPE."
    )
    keep: k.Keep = Field(default_factory=k.Full, description="Which keys a query sees.")
    qk_norm: Norm | None = Field(None, description="Norm of each q and k head before positions.")
    bias: bool = Field(False, description="Whether the q, k and v projections have a bias.")
    gate: bool = Field(False, description="Output times sigmoid(Linear(x)), per channel.")
    softcap: float | None = Field(
        None, gt=0, description="Scores become softcap * tanh(score / softcap)."
    )
    sink_logits: bool = Field(False, description="A learned logit per head joins the softmax.")
    scale: float | None = Field(
        None, gt=0, description="Of scores; default 1 / sqrt(head_dim)."
    )
    kv: Reuse | None = Field(None, description="Keys and values of an earlier layer.")
    weights: Reuse | None = Field(None, description="Attention weights of an earlier layer.")

    # ---------------------------------------------------------------- what depends on the model

    def bind(self, width: int, report: Report) -> Self:
        kv_heads = self.kv_heads or self.heads
        if self.heads % kv_heads:
            report(
                "MX402",
                self.origin.of("kv_heads"),
                f"{kv_heads} KV heads do not divide {self.heads} heads",
                help=f"kv_heads={nearest_divisor(self.heads, kv_heads)} does",
            )
        if self.head_dim is None and width % self.heads:
            report(
                "MX402",
                self.origin.of("heads"),
                f"{self.heads} heads do not divide dim {width}",
                help="give head_dim, or a number of heads that divides dim: "
                f"{nearest_divisor(width, self.heads)}",
            )
        head_dim = self.head_dim or max(1, width // self.heads)
        bound = self.replace(
            kv_heads=kv_heads, head_dim=head_dim, value_dim=self.value_dim or head_dim
        )
        bound._check_dims(report)
        return bound

    def _check_dims(self, report: Report) -> None:
        assert self.head_dim is not None and self.kv_heads is not None
        if isinstance(self.position, Rope) and int(self.head_dim * self.position.fraction) < 2:
            report(
                "MX407",
                self.position.origin.of("fraction")
                if "fraction" in self.position.origin.fields
                else self.origin.of("head_dim"),
                "rope rotates pairs of channels, and there are none in "
                f"{self.position.fraction} of head_dim {self.head_dim}",
                help="use a larger head_dim or fraction, or position=none",
            )
        for leaf in leaves(self.keep):
            if isinstance(leaf, k.ByHead) and len(leaf.keeps) != self.kv_heads:
                report(
                    "MX402",
                    leaf.origin.span,
                    f"by_head lists {len(leaf.keeps)} keeps for {self.kv_heads} KV heads",
                    help=f"list {self.kv_heads}, or set kv_heads={len(leaf.keeps)}",
                )
        for scorer in self.scorers():
            if self.head_dim // 2 ** max(0, len(scorer.kernels) - 1) < 1:
                report(
                    "MX407",
                    self.origin.of("head_dim"),
                    f"a scorer of {len(scorer.kernels)} layers halves head_dim {self.head_dim} "
                    "to nothing",
                    help="raise head_dim or use fewer layers",
                )

    def check(self, report: Report) -> None:
        check_keep(self.keep, report)

    def scorers(self) -> list[k.Cnn]:
        learned = [leaf for leaf in leaves(self.keep) if isinstance(leaf, k.Learned)]
        return [leaf.scorer for leaf in learned if isinstance(leaf.scorer, k.Cnn)]

    # --------------------------------------------------------------------------------- costs

    def shape(self) -> tuple[int, int, int, int]:
        """heads, kv_heads, head_dim, value_dim of the bound term."""
        assert self.kv_heads and self.head_dim and self.value_dim, "cost of an unbound term"
        return self.heads, self.kv_heads, self.head_dim, self.value_dim

    def projections(self, width: int) -> list[tuple[int, int]]:
        """Linear maps of the layer as (in, out)."""
        heads, kv_heads, head_dim, value_dim = self.shape()
        maps = [
            (width, heads * head_dim),
            (width, kv_heads * head_dim),
            (width, kv_heads * value_dim),
            (heads * value_dim, width),
        ]
        if self.gate:
            maps.append((width, heads * value_dim))
        for leaf in leaves(self.keep):
            if isinstance(leaf, k.GatedKeep):
                maps.append((width, heads * len(leaf.parts)))
        return maps

    def parameters(self, width: int) -> int:
        heads, kv_heads, head_dim, value_dim = self.shape()
        total = sum(a * b for a, b in self.projections(width))
        if self.bias:
            total += heads * head_dim + kv_heads * (head_dim + value_dim)
        if self.qk_norm is not None:
            total += 2 * self.qk_norm.parameters(head_dim)
        if self.sink_logits:
            total += heads
        return total + sum(
            keep_parameters(leaf, own_heads, head_dim, value_dim)
            for leaf, own_heads in leaves_by_heads(self.keep, kv_heads)
        )

    def parts(self, width: int, work: Workload) -> list[Part]:
        from .attention_parts import parts

        return list(parts(self, width, work))

    def step_parts(self, width: int, work: Workload) -> list[Part]:
        from .attention_parts import step_parts

        return list(step_parts(self, width, work))

    def cache_bytes(self, width: int, work: Workload) -> Count:
        from .keep_cost import keep_cache_bytes

        return keep_cache_bytes(self, work)

    def bound_bytes(self, width: int, work: Workload) -> Count:
        from .keep_cost import keep_bound_bytes

        return keep_bound_bytes(self, work)


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted`, the smaller of two equally near; 1 where none
    is within 200."""
    for distance in range(200):
        for candidate in (wanted - distance, wanted + distance):
            if candidate >= 1 and number % candidate == 0:
                return candidate
    return 1


def leaves(keep: k.Keep) -> Iterator[k.Keep]:
    """Every keep of an expression, `gated` and `by_head` themselves included."""
    if isinstance(keep, k.Union | k.Intersection):
        for part in keep.parts:
            yield from leaves(part)
        return
    yield keep
    if isinstance(keep, k.GatedKeep):
        for part in keep.parts:
            yield from leaves(part)
    elif isinstance(keep, k.ByHead):
        for part in keep.keeps:
            yield from leaves(part)


def leaves_by_heads(keep: k.Keep, kv_heads: int) -> Iterator[tuple[k.Keep, int]]:
    """Every keep of an expression with the KV heads that share it: equal ones of `by_head` do."""
    keeps = keep.keeps if isinstance(keep, k.ByHead) else (keep,) * kv_heads
    for own in dict.fromkeys(keeps):
        for leaf in leaves(own):
            yield leaf, keeps.count(own)


def branches(keep: k.Keep) -> tuple[k.Keep, ...]:
    """The keeps with a softmax of their own."""
    return keep.parts if isinstance(keep, k.GatedKeep) else (keep,)


def keys_of(branch: k.Keep, length: Count) -> Count:
    """Keys of the dense score matrix of a branch."""
    if isinstance(branch, k.Compressed):
        return summaries(branch, length)
    return length


def summaries(keep: k.Compressed, length: Count) -> Count:
    """Complete summaries of the first `length` tokens."""
    stride = keep.stride or keep.size
    return greatest(0, (length - keep.size) // stride + 1)


def scorer_shapes(scorer: k.Cnn, head_dim: int, value_dim: int) -> list[tuple[int, int, int]]:
    """(in channels, out channels, kernel) of each layer per KV head, the projection last.

    Channels go head_dim + value_dim -> head_dim -> head_dim / 2 -> ... -> 1.
    """
    shapes = []
    channels = head_dim + value_dim
    for index, kernel in enumerate(scorer.kernels):
        out = head_dim // 2**index
        shapes.append((channels, out, kernel))
        channels = out
    return [*shapes, (channels, 1, 1)]


def keep_parameters(leaf: k.Keep, kv_heads: int, head_dim: int, value_dim: int) -> int:
    """Trainable parameters of one keep of an expression."""
    if isinstance(leaf, k.Learned) and isinstance(leaf.scorer, k.Cnn):
        shapes = scorer_shapes(leaf.scorer, head_dim, value_dim)
        return kv_heads * sum(cin * cout * kernel + cout for cin, cout, kernel in shapes)
    if isinstance(leaf, k.Compressed) and isinstance(leaf.map, k.MlpMap):
        dims = (head_dim, value_dim)
        return sum(mlp_map_parameters(leaf.size, leaf.map.expand, dim) for dim in dims)
    if isinstance(leaf, k.Blocks) and leaf.score == "mlp":
        return mlp_map_parameters(leaf.size, 1, head_dim)
    return 0


def mlp_map_parameters(size: int, expand: int, dim: int) -> int:
    """Of a block summary: intra-block positions (size, dim), size*dim -> expand*dim -> dim."""
    hidden = expand * dim
    return size * dim + (size * dim * hidden + hidden) + (hidden * dim + dim)


def check_keep(keep: k.Keep, report: Report) -> None:
    """The rules on what may be combined (language.md, "What attention keeps")."""
    _check_combination(keep, report, inside=None)


EVICTING = (k.Learned, k.Evict)


def _check_combination(keep: k.Keep, report: Report, inside: str | None) -> None:
    if isinstance(keep, k.Union):
        _check_union(keep, report, inside)
    elif isinstance(keep, k.Intersection):
        for part in keep.parts:
            if isinstance(part, EVICTING):
                report("MX310", part.origin.span, f"`{part.word}` cannot stand inside `&`",
                       help="write it in a union with one window: window(w) | " + part.word)
            else:
                _check_combination(part, report, inside="`&`")
    elif isinstance(keep, k.GatedKeep | k.ByHead):
        _check_container(keep, report, inside)
    elif isinstance(keep, k.Compressed) and inside not in (None, "`gated`"):
        report("MX310", keep.origin.span, "`compressed` stands alone or inside `gated`",
               help="its summaries are not tokens, so sets of tokens cannot hold them: "
               "gated(compressed(...), ...)")
    elif isinstance(keep, k.Learned):
        report("MX310", keep.origin.span, "`learned` needs a window beside it",
               help="write window(w) | learned(...)")
    elif isinstance(keep, k.Evict) and keep.policy != "tova":
        report("MX310", keep.origin.span, f"evict({keep.policy}) needs a window beside it",
               help=f"write window(w) | evict({keep.policy}, budget={keep.budget})")
    elif isinstance(keep, k.Blocks) and keep.score == "compressed" and inside != "`gated`":
        report("MX310", keep.origin.of("score"),
               "score=compressed needs a `compressed` branch beside it in `gated`",
               help="use score=mean, or gated(compressed(...), blocks(...))")


def _check_container(keep: k.GatedKeep | k.ByHead, report: Report, inside: str | None) -> None:
    parts = keep.parts if isinstance(keep, k.GatedKeep) else keep.keeps
    if inside is not None:
        report("MX310", keep.origin.span, f"`{keep.word}` cannot stand inside {inside}",
               help="it divides the attention itself, so it comes first")
        return
    if not parts:
        report("MX303", keep.origin.span, f"`{keep.word}` needs at least one keep")
    if isinstance(keep, k.GatedKeep):
        _check_gated(keep, report)
    for part in parts:
        _check_combination(part, report, inside=f"`{keep.word}`")


def _check_gated(keep: k.GatedKeep, report: Report) -> None:
    compressed = [part for part in keep.parts if isinstance(part, k.Compressed)]
    if len(compressed) > 1:
        report("MX310", compressed[1].origin.span, "`gated` takes one `compressed` branch")
    for part in keep.parts:
        if isinstance(part, k.Blocks) and part.score == "compressed" and not compressed:
            report("MX310", part.origin.of("score"),
                   "score=compressed needs a `compressed` branch beside it in `gated`",
                   help="use score=mean, or add compressed(...)")


def _check_union(keep: k.Union, report: Report, inside: str | None) -> None:
    evicting = [part for part in keep.parts if isinstance(part, EVICTING)]
    windows = [part for part in keep.parts if isinstance(part, k.Window)]
    others = [part for part in keep.parts if not isinstance(part, EVICTING)]
    for part in others:
        _check_combination(part, report, inside="`|`")
    if not evicting:
        return
    if inside == "`&`":
        report("MX310", evicting[0].origin.span, f"`{evicting[0].word}` cannot stand inside `&`",
               help="it stands in a union with one window: window(w) | " + evicting[0].word)
        return
    if len(evicting) > 1:
        report("MX310", evicting[1].origin.span, "a union takes one `learned` or `evict`",
               help="give it the whole budget, or use by_head for different heads")
        return
    part = evicting[0]
    if len(windows) != 1:
        report("MX310", part.origin.span,
               f"`{part.word}` stands in a union with exactly one window, not {len(windows)}",
               help=f"write window(w) | {part.word}(...)")
        return
    if len(keep.parts) > 2:
        extra = next(p for p in keep.parts if p is not part and p is not windows[0])
        report("MX310", extra.origin.span or keep.origin.span,
               f"beside `{part.word}` and its window nothing else may stand in the union",
               help="learned(..., sinks=n) pins sinks" if isinstance(extra, k.Sinks) else None)
        return
    _check_lookahead(part, windows[0], report)


def _check_lookahead(part: k.Keep, window: k.Window, report: Report) -> None:
    if not isinstance(part, k.Learned) or not isinstance(part.scorer, k.Cnn):
        return
    if len(part.scorer.kernels) != len(part.scorer.dilations):
        return  # reported by the scorer itself
    lookahead = part.scorer.lookahead()
    if window.size < lookahead:
        report("MX403", window.origin.of("size"),
               f"the scorer reads {lookahead} tokens ahead, and a token leaves the window of "
               f"{window.size} before they are there",
               help=f"use a window of {lookahead} or more, or a scorer that looks less far ahead")
