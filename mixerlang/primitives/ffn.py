"""Feed-forward networks."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from .base import Op, Report
from .part import Part, Workload, elementwise, linear

Width = Annotated[int, Field(ge=1, lt=2**31)]
Ratio = Annotated[Fraction, Field(gt=0, le=1024)]
Activation = Literal["silu", "gelu", "relu", "relu2"]


class Ffn(Op):
    """Token-wise network with one hidden width: `hidden`, or ratio * dim rounded up."""

    kind: ClassVar[str] = "ffn"

    spec_only: ClassVar[frozenset[str]] = frozenset({"ratio", "multiple_of"})

    hidden: Width | None = Field(None, description="Hidden width; default from ratio.")
    ratio: Ratio = Field(Fraction(4), description="Hidden width over dim, where hidden is absent.")
    multiple_of: Width = Field(1, description="ratio * dim is rounded up to a multiple of this.")

    def bind(self, width: int, report: Report) -> Self:
        hidden = self.hidden or ceil(self.ratio * width / self.multiple_of) * self.multiple_of
        return self.replace(hidden=hidden)

    def _hidden(self) -> int:
        assert self.hidden is not None, "cost of an unbound term"
        return self.hidden


class SwiGLU(Ffn):
    """down(silu(gate(x)) * up(x)) (Shazeer, 2020)."""

    word: ClassVar[str] = "swiglu"
    order: ClassVar[tuple[str, ...]] = ("ratio", "multiple_of")
    ratio: Ratio = Field(Fraction(8, 3), description="Hidden width over dim.")

    def parameters(self, width: int) -> int:
        return 3 * width * self._hidden()

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Kept for backward: gate(x), up(x), their product, and in plain PyTorch silu(gate(x))."""
        hidden = self._hidden()
        kept = work.bytes_per_element * work.tokens * hidden
        between = kept if work.kernels else 2 * kept
        return [
            linear("gate", work, width, hidden, saved=kept),
            linear("up", work, width, hidden, saved=kept),
            elementwise("silu(gate) * up", work, 2 * hidden, hidden, saved=between),
            linear("down", work, hidden, width),
        ]


class Mlp(Ffn):
    """down(activation(up(x)))."""

    word: ClassVar[str] = "mlp"
    order: ClassVar[tuple[str, ...]] = ("activation", "ratio")
    activation: Activation = Field("gelu", description="Between the two maps; relu2 is relu^2.")
    bias: bool = Field(False, description="Whether both maps have a bias.")

    def parameters(self, width: int) -> int:
        bias = self._hidden() + width if self.bias else 0
        return 2 * width * self._hidden() + bias

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Kept for backward: up(x) and its activation, which relu alone tells from one another."""
        hidden = self._hidden()
        kept = work.bytes_per_element * work.tokens * hidden
        before = 0 if self.activation == "relu" else kept
        return [
            linear("up", work, width, hidden, self.bias, saved=before),
            elementwise(self.activation, work, hidden, hidden, saved=kept),
            linear("down", work, hidden, width, self.bias),
        ]
