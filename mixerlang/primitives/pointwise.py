"""The pointwise primitive: token-wise functions of one or more streams, for blocks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from .base import Op, Report
from .part import Part, Workload, elementwise, linear


class Pointwise(Op):
    """A function of each token alone."""

    kind: ClassVar[str] = "pointwise"


class Linear(Pointwise):
    """x W (+ bias), to `out` channels."""

    word: ClassVar[str] = "linear"
    out: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Output channels; default those of the input."
    )
    bias: bool = Field(False, description="Whether a bias is learned.")

    def bind(self, width: int, report: Report) -> Self:
        return self.replace(out=self.out or width)

    def output_width(self, *widths: int) -> int:
        return self.out or widths[0]

    def parameters(self, width: int) -> int:
        return (width + self.bias) * self.output_width(width)

    def parts(self, width: int, work: Workload) -> list[Part]:
        return [linear(self.word, work, width, self.output_width(width), self.bias)]


class Activation(Pointwise):
    """An element-wise nonlinearity. Written by the name of its function."""

    function: Literal["silu", "gelu", "relu", "relu2", "sigmoid", "tanh"]

    def parts(self, width: int, work: Workload) -> list[Part]:
        """relu, relu2, sigmoid and tanh keep what they give, not what they read."""
        kept = 0 if self.keeps_inputs() else work.bytes_per_element * work.tokens * width
        return [elementwise(self.function, work, width, width, saved=kept)]

    def keeps_inputs(self) -> bool:
        return self.function in ("silu", "gelu")


class Gate(Pointwise):
    """x * sigmoid(Linear(x)), per channel."""

    word: ClassVar[str] = "gate"

    def parameters(self, width: int) -> int:
        return width * width

    def parts(self, width: int, work: Workload) -> list[Part]:
        kept = work.bytes_per_element * work.tokens * width
        return [
            linear("proj", work, width, width, saved=kept),
            elementwise("x * sigmoid", work, 2 * width, width),
        ]


class Scale(Pointwise):
    """x times a learned weight per channel that starts at `init` (LayerScale, 2103.17239)."""

    word: ClassVar[str] = "scale"
    init: float = Field(1.0, description="Where the weight starts.")

    def parameters(self, width: int) -> int:
        return width


class Dropout(Pointwise):
    """Dropout in training, the identity otherwise."""

    word: ClassVar[str] = "dropout"
    p: float = Field(ge=0, lt=1, description="Probability of dropping an element.")

    def keeps_inputs(self) -> bool:
        return False

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Kept for backward: a byte per element."""
        return [elementwise(self.word, work, width, width, saved=work.tokens * width)]


# What the operators of a block mean. They have no name in the language.


class Add(Pointwise):
    """Sum of its inputs."""

    def keeps_inputs(self) -> bool:
        return False


class Multiply(Pointwise):
    """Element-wise product of its inputs."""


class ScaleBy(Pointwise):
    """x times a constant of the spec."""

    factor: float

    def keeps_inputs(self) -> bool:
        return False


class WeightedSum(Pointwise):
    """Sum of its inputs with one learned weight each, starting at `init`."""

    init: tuple[float, ...]

    def parameters(self, width: int) -> int:
        return len(self.init)


class GatedSum(Pointwise):
    """The first inputs weighted by sigmoid(Linear(x)) of the last one, a gate per channel."""

    streams: Annotated[int, Field(ge=1, le=64)]

    def parameters(self, width: int) -> int:
        return self.streams * width * width

    def parts(self, width: int, work: Workload) -> list[Part]:
        gates = self.streams * width
        kept = work.bytes_per_element * work.tokens * gates
        return [
            linear("proj", work, width, gates, saved=kept),
            elementwise("sum of gated", work, 2 * gates, width),
        ]


class Concat(Pointwise):
    """Channels side by side."""

    word: ClassVar[str] = "concat"

    def output_width(self, *widths: int) -> int:
        return sum(widths)

    def keeps_inputs(self) -> bool:
        return False
