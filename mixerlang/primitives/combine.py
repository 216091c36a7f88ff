"""Mixers made of mixers. They expand into their parts; the graph holds no node for them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from .base import Report, Term

MOST = 64
"""Mixers side by side."""


class Combination(Term):
    kind: ClassVar[str] = "mixer"


class Combined(Combination):
    """Parallel mixers over one input."""

    parts: tuple[Term, ...] = Field(description="The mixers.")

    def check(self, report: Report) -> None:
        if not self.parts:
            report("MX303", self.origin.span, f"`{self.word}` needs at least one mixer")
        if len(self.parts) > MOST:
            report("MX304", self.origin.of("parts"), f"`{self.word}` takes at most {MOST} mixers")


class Weighted(Combined):
    weights: tuple[float, ...] | None = Field(
        None, description="One weight per mixer; default 1 each. A mean divides by their sum."
    )
    learned: bool = Field(False, description="Whether the weights are trained from there.")

    def check(self, report: Report) -> None:
        super().check(report)
        if self.weights is not None and len(self.weights) != len(self.parts):
            report(
                "MX302",
                self.origin.of("weights"),
                f"{len(self.parts)} mixers need as many weights, not {len(self.weights)}",
            )

    def factors(self) -> tuple[float, ...]:
        return self.weights or (1.0,) * len(self.parts)


class Sum(Weighted):
    """The sum of the mixers' outputs, each times its weight."""

    word: ClassVar[str] = "sum"


class Mean(Weighted):
    """The weighted mean of the mixers' outputs; learned weights start there and go free."""

    word: ClassVar[str] = "mean"

    def check(self, report: Report) -> None:
        super().check(report)
        if self.weights is not None and sum(self.weights) == 0:
            report("MX302", self.origin.of("weights"), "a mean divides by the sum of its "
                   "weights, which is 0", help="use sum(...) for differences")

    def factors(self) -> tuple[float, ...]:
        weights = super().factors()
        return tuple(weight / sum(weights) for weight in weights)


class GatedMixers(Combined):
    """Each mixer times sigmoid(Linear(x)), per channel, then summed."""

    word: ClassVar[str] = "gated"


class ConcatMixers(Combined):
    """Side by side, then a linear map back to dim."""

    word: ClassVar[str] = "concat"


class Chain(Combined):
    """a >> b: the output of a is the input of b. Written with the operator, never by name."""


class Tied(Term):
    """One set of weights wherever this value stands: a mixer, or a whole layer."""

    kind: ClassVar[str] = "mixer"
    word: ClassVar[str] = "tied"

    value: Term = Field(
        description="A mixer or a layer.", json_schema_extra={"kinds": ["mixer", "layer"]}
    )
    identity: int = Field(0, exclude=True, description="Tells evaluations of `tied` apart.")


class Block(Term):
    """How a layer's parts are wired; a closure of the evaluator."""

    kind: ClassVar[str] = "block"


class Layer(Term):
    """A mixer in a block. What is left out is the model's."""

    kind: ClassVar[str] = "layer"
    word: ClassVar[str] = "layer"

    mixer: Term = Field(
        description="The mixer, or none.", json_schema_extra={"kinds": ["mixer", "none"]}
    )
    ffn: Term | None = Field(
        None, description="The ffn, or none.", json_schema_extra={"kinds": ["ffn", "none"]}
    )
    norm: Term | None = Field(
        None,
        description="The norm inside the block, or none.",
        json_schema_extra={"kinds": ["norm", "none"]},
    )
    block: Block | None = Field(None, description="How the parts are wired.")


class NoTerm(Term):
    """`none`: zero. It passes through norms, gates and products and vanishes from sums."""

    kind: ClassVar[str] = "none"
    word: ClassVar[str] = "none"
