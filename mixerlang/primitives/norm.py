"""Norms and positions."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from .base import Op, Term
from .part import Part, Workload, elementwise


class Norm(Op):
    kind: ClassVar[str] = "norm"


class RMSNorm(Norm):
    """x / sqrt(mean(x^2) + eps), times a learned weight (Zhang and Sennrich, 2019)."""

    word: ClassVar[str] = "rmsnorm"
    eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square.")

    def parameters(self, width: int) -> int:
        return width

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Kept for backward: 1 / sqrt(mean(x^2) + eps) in float32."""
        return [elementwise(self.word, work, width, width, width, saved=4 * work.tokens)]


class LayerNorm(Norm):
    """Zero mean, unit variance, learned weight and bias (Ba et al., 2016)."""

    word: ClassVar[str] = "layernorm"
    eps: float = Field(1e-5, gt=0, lt=1, description="Added to the variance.")
    bias: bool = Field(True, description="Whether a bias is learned.")

    def parameters(self, width: int) -> int:
        return width * (1 + self.bias)

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Kept for backward: mean and 1 / deviation in float32."""
        weights = self.parameters(width)
        return [elementwise(self.word, work, width, width, weights, saved=8 * work.tokens)]


class Position(Term):
    kind: ClassVar[str] = "position"


class Rope(Position):
    """Rotary positions (Su et al., 2021), halves rotated against each other."""

    word: ClassVar[str] = "rope"
    theta: float = Field(10_000.0, gt=1, le=1e12, description="Base of the wavelengths.")
    fraction: float = Field(
        1.0, gt=0, le=1, description="Part of head_dim that is rotated, rounded down to even."
    )


class Alibi(Position):
    """A linear penalty on distance, one slope per head (Press et al., 2022)."""

    word: ClassVar[str] = "alibi"
