"""The memory primitive: an inner model trained at test time (TTT, Titans, Miras).

The language accepts it; no backend has a layer for it yet (MX501).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .attention import HeadDim, Heads
from .base import Mixer, Term


class Inner(Term):
    kind: ClassVar[str] = "inner"


class LinearInner(Inner):
    """One linear map."""

    word: ClassVar[str] = "linear"


class MlpInner(Inner):
    """A network of `depth` linear maps."""

    word: ClassVar[str] = "mlp"
    depth: Annotated[int, Field(ge=1, le=16)] = Field(2, description="Linear maps.")
    expand: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Hidden width over input.")


class Objective(Term):
    kind: ClassVar[str] = "objective"


class L2(Objective):
    """Squared error."""

    word: ClassVar[str] = "l2"


class Lp(Objective):
    """|error|^p (Moneta)."""

    word: ClassVar[str] = "lp"
    p: float = Field(3.0, gt=1, le=16, description="The exponent.")


class Huber(Objective):
    """Huber loss (Yaad)."""

    word: ClassVar[str] = "huber"
    delta: float = Field(1.0, gt=0, description="Where the quadratic part ends.")


class Retention(Term):
    kind: ClassVar[str] = "retention"


class DecayRetention(Retention):
    """Weights shrink."""

    word: ClassVar[str] = "decay"


class LqRetention(Retention):
    """An L_q penalty on the weights (Moneta)."""

    word: ClassVar[str] = "lq"
    q: float = Field(4.0, gt=1, le=16, description="The exponent.")


class SoftmaxRetention(Retention):
    """Weights on the simplex (Memora)."""

    word: ClassVar[str] = "softmax"


class Memory(Mixer):
    """A memory that learns at test time."""

    word: ClassVar[str] = "memory"
    ready: ClassVar[bool] = False

    heads: Heads = Field(description="Independent memories.")
    head_dim: HeadDim | None = Field(None, description="Of keys and values; default dim / heads.")
    inner: Inner = Field(default_factory=LinearInner, description="The model that is trained.")
    objective: Objective = Field(default_factory=L2, description="What it is trained on.")
    retention: Retention = Field(default_factory=DecayRetention, description="How it forgets.")
    momentum: bool = Field(False, description="Whether surprise carries over (Titans).")
    chunk: Annotated[int, Field(ge=1, le=65_536)] = Field(
        64, description="Tokens that share one gradient."
    )
    update: Literal["gradient"] = Field("gradient", description="The inner optimiser.")
