"""The recurrence primitive: a point in the space decay x update x features x normalizer.

The state S (key_dim, value_dim) of each value head goes, per token,

    S = decay * S
    S += b k v^T                      (update = additive)
    S += b k (v - S^T k)^T            (update = delta, with the already decayed S)
    o = scale * S^T q                 (over scale * z^T q with normalizer = sum, z += b k)
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from ..algebra import Count
from .attention import HeadDim, Heads, nearest_divisor
from .base import Mixer, Report, Term
from .norm import Position, Rope
from .part import Part, Workload

CHUNK = 64
"""Tokens per chunk of the eager backend's parallel form."""

WIDEST = 65_536
"""Channels that features may give."""
TOO_WIDE = 2**31
"""Where a chain of features stops counting: each `taylor` squares its width."""


# ------------------------------------------------------------------------------------ features


class Feature(Term):
    """A map on each head of q and k."""

    kind: ClassVar[str] = "feature"

    def width(self, dim: int) -> int:
        """Channels that the map gives for `dim` channels."""
        return dim

    def weights(self, heads: int, dim: int) -> int:
        """Trainable parameters for `heads` heads of `dim` channels."""
        return 0


class Identity(Feature):
    """x itself."""

    word: ClassVar[str] = "identity"


class Silu(Feature):
    """x sigmoid(x)."""

    word: ClassVar[str] = "silu"


class Relu(Feature):
    """max(x, 0)."""

    word: ClassVar[str] = "relu"


class L2Norm(Feature):
    """x / sqrt(sum(x^2) + 1e-6), per head."""

    word: ClassVar[str] = "l2norm"


class Softmax(Feature):
    """Softmax over the channels of a head."""

    word: ClassVar[str] = "softmax"


class Elu1(Feature):
    """elu(x) + 1 (Katharopoulos et al., 2020)."""

    word: ClassVar[str] = "elu1"


class Taylor(Feature):
    """[1, x / d^(1/4), x (x) x / sqrt(2 d)], so that q . k gives 1 + s + s^2 / 2 with
    s = q . k / sqrt(d) (BASED, 2402.18668)."""

    word: ClassVar[str] = "taylor"
    degree: Annotated[int, Field(ge=1, le=2)] = Field(2, description="Degree of the expansion.")

    def width(self, dim: int) -> int:
        return 1 + dim + (dim * dim if self.degree == 2 else 0)


class Hedgehog(Feature):
    """softmax([W x, -W x]) with a learned W per head (2402.04347)."""

    word: ClassVar[str] = "hedgehog"

    def width(self, dim: int) -> int:
        return 2 * dim

    def weights(self, heads: int, dim: int) -> int:
        return heads * dim * dim


class Compose(Feature):
    """a >> b: first a, then b. Written with the operator, never by name."""

    parts: tuple[Feature, ...]

    def width(self, dim: int) -> int:
        for part in self.parts:
            dim = min(part.width(dim), TOO_WIDE)
        return dim

    def weights(self, heads: int, dim: int) -> int:
        total = 0
        for part in self.parts:
            total += part.weights(heads, dim)
            dim = part.width(dim)
        return total


# ----------------------------------------------------------------------------- decay and update


class Decay(Term):
    kind: ClassVar[str] = "decay"

    def weights(self, width: int, heads: int, key_dim: int) -> int:
        """Trainable parameters, for `heads` decaying heads and an input of `width`."""
        return 0

    def maps(self, width: int, heads: int, key_dim: int) -> list[tuple[int, int]]:
        """Linear maps as (in, out)."""
        return []


class NoDecay(Decay):
    """Nothing is forgotten."""

    word: ClassVar[str] = "none"


class Fixed(Decay):
    """One constant per head. retnet: log(1 - 2^(-5 - h)); lightning: -2^(-8 (h + 1) / heads)."""

    word: ClassVar[str] = "fixed"
    schedule: Literal["retnet", "lightning"] = Field("retnet", description="The constants.")


class Scalar(Decay):
    """Per head and token: log a = -exp(A_log) softplus(Linear(x) + dt_bias) (Mamba2, GDN)."""

    word: ClassVar[str] = "scalar"

    def maps(self, width: int, heads: int, key_dim: int) -> list[tuple[int, int]]:
        return [(width, heads)]

    def weights(self, width: int, heads: int, key_dim: int) -> int:
        return width * heads + 2 * heads


class Vector(Decay):
    """Per key channel and token.

    sigmoid: log a = logsigmoid(Linear(x)) / temperature (GLA, HGRN2);
    softplus: log a = -exp(A_log) softplus(Linear(x) + dt_bias) (KDA), A_log per head.
    """

    word: ClassVar[str] = "vector"
    form: Literal["sigmoid", "softplus"] = Field("sigmoid", description="How log a is formed.")
    rank: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Rank of the linear map; default full."
    )
    temperature: float = Field(1.0, gt=0, le=1e6, description="Divides log a in the sigmoid form.")

    def maps(self, width: int, heads: int, key_dim: int) -> list[tuple[int, int]]:
        out = heads * key_dim
        return [(width, out)] if self.rank is None else [(width, self.rank), (self.rank, out)]

    def weights(self, width: int, heads: int, key_dim: int) -> int:
        total = sum(a * b for a, b in self.maps(width, heads, key_dim))
        bias = heads * key_dim
        return total + bias + (heads if self.form == "softplus" else 0)


class Update(Term):
    kind: ClassVar[str] = "update"

    @property
    def gated(self) -> bool:
        """Whether b is a sigmoid of a linear map of its own."""
        return True


class Additive(Update):
    """S += b k v^T; b is 1, the softplus step of the scalar decay (Mamba2's dt), or a gate."""

    word: ClassVar[str] = "additive"
    step: bool = Field(False, description="Scale by softplus(Linear(x) + dt_bias) of the decay.")
    gate: bool = Field(False, description="Scale by sigmoid(Linear(x)) per head and token.")

    @property
    def gated(self) -> bool:
        return self.gate


class Delta(Update):
    """S += b k (v - S^T k)^T, b = scale * sigmoid(Linear(x)) per head and token."""

    word: ClassVar[str] = "delta"
    scale: float = Field(
        1.0, gt=0, le=2, description="Largest b; 2 allows negative eigenvalues (2411.12537)."
    )


class Output(Term):
    kind: ClassVar[str] = "output"


class PlainOutput(Output):
    """S^T q as it is."""

    word: ClassVar[str] = "none"


class RMSNormOutput(Output):
    """RMSNorm of each head, one weight of value_dim shared by the heads."""

    word: ClassVar[str] = "rmsnorm"
    eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square.")


class GatedRMSNorm(Output):
    """RMSNorm of each head times activation(Linear(x))."""

    word: ClassVar[str] = "gated_rmsnorm"
    activation: Literal["silu", "sigmoid"] = Field("silu", description="Of the gate.")
    rank: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Rank of the gate's linear map; default full."
    )
    eps: float = Field(1e-6, gt=0, lt=1, description="Added to the mean square.")


# --------------------------------------------------------------------------------- the primitive


class Recurrence(Mixer):
    """A linear recurrence with a matrix state per head."""

    word: ClassVar[str] = "recurrence"

    heads: Heads = Field(description="Heads of q and k.")
    value_heads: Heads | None = Field(
        None, description="Heads of v and of the state; default heads. Several may share a q and k."
    )
    key_dim: HeadDim | None = Field(None, description="Per head of q and k; default dim / heads.")
    value_dim: HeadDim | None = Field(None, description="Per head of v; default key_dim.")
    features: Feature = Field(default_factory=Identity, description="Map on q and k.")
    values: Feature = Field(default_factory=Identity, description="Map on v.")
    decay: Decay = Field(default_factory=NoDecay, description="What the state forgets.")
    update: Update = Field(default_factory=Additive, description="What a token writes.")
    normalizer: Literal["none", "sum"] = Field(
        "none", description="sum divides by z . q, z the decayed sum of keys."
    )
    keys: Literal["linear", "complement"] = Field(
        "linear", description="complement: k = 1 - a of the vector decay (HGRN2)."
    )
    position: Position | None = Field(None, description="rope on q and k (RetNet), or none.")
    conv: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="Kernel of the causal depthwise convolution on q, k and v; 0 for none."
    )
    skip: bool = Field(False, description="Add D * v with a learned D per value head (Mamba2).")
    output: Output = Field(default_factory=RMSNormOutput, description="What follows S^T q.")
    scale: float | None = Field(None, gt=0, description="Of q; default 1 / sqrt(key_dim).")

    def bind(self, width: int, report: Report) -> Self:
        value_heads = self.value_heads or self.heads
        if value_heads % self.heads:
            report("MX402", self.origin.of("value_heads"),
                   f"{self.heads} heads do not divide {value_heads} value heads",
                   help=f"heads={nearest_divisor(value_heads, self.heads)} does")
        if self.key_dim is None and width % self.heads:
            report("MX402", self.origin.of("heads"),
                   f"{self.heads} heads do not divide dim {width}",
                   help="give key_dim, or a number of heads that divides dim: "
                   f"{nearest_divisor(width, self.heads)}")
        key_dim = self.key_dim or max(1, width // self.heads)
        if self.features.width(key_dim) > WIDEST:
            report("MX407", self.origin.of("key_dim"),
                   f"these features give more than {WIDEST:,} channels for key_dim {key_dim}",
                   help="use a smaller key_dim: taylor(2) squares it")
        return self.replace(
            value_heads=value_heads, key_dim=key_dim, value_dim=self.value_dim or key_dim
        )

    def check(self, report: Report) -> None:
        at = self.origin.of
        takes_step = isinstance(self.update, Additive) and self.update.step
        if takes_step and self.update.gated:
            report("MX302", at("update"), "an additive update has a step or a gate, not both")
        if takes_step and not isinstance(self.decay, Scalar):
            report("MX302", at("update"), "additive(step=true) takes its step from the decay",
                   help="set decay=scalar, or leave step out")
        if self.keys == "complement" and not isinstance(self.decay, Vector):
            report("MX302", at("keys"), "keys=complement needs a decay per key channel",
                   help="set decay=vector, or leave keys out")
        if self.keys == "complement" and self.features.width(2) != 2:
            report("MX302", at("features"), "keys=complement takes features that keep key_dim")
        if isinstance(self.decay, Vector) and self.features.width(2) != 2:
            report("MX302", at("decay"),
                   "a decay per key channel needs features that keep key_dim",
                   help="use decay=scalar or features such as silu and l2norm")
        if self.position is not None and not isinstance(self.position, Rope):
            report("MX302", at("position"), "a recurrence takes rope or none as its position")
        if self.values.width(2) != 2 or self.values.weights(1, 1):
            report("MX302", at("values"), "the map on v must keep its width and learn nothing",
                   help="use silu or identity")
        if self.normalizer == "sum" and isinstance(self.update, Delta):
            report("MX302", at("normalizer"), "the delta rule has no sum of keys to divide by",
                   help="leave normalizer out, or use update=additive")

    # --------------------------------------------------------------------------------- costs

    def shape(self) -> tuple[int, int, int, int]:
        """heads, value_heads, key_dim, value_dim of the bound term."""
        assert self.value_heads and self.key_dim and self.value_dim, "cost of an unbound term"
        return self.heads, self.value_heads, self.key_dim, self.value_dim

    def decay_heads(self) -> int:
        """Heads with a decay of their own: of the state, or of the keys for a vector decay."""
        heads, value_heads, _, _ = self.shape()
        return heads if isinstance(self.decay, Vector) else value_heads

    def projections(self, width: int) -> list[tuple[int, int]]:
        """Linear maps of the layer as (in, out)."""
        heads, value_heads, key_dim, value_dim = self.shape()
        keys, values = heads * key_dim, value_heads * value_dim
        maps = [(width, keys), (width, values), (values, width)]
        if self.keys == "linear":
            maps.append((width, keys))
        maps += self.decay.maps(width, self.decay_heads(), key_dim)
        if self.update.gated:
            maps.append((width, value_heads))
        if isinstance(self.output, GatedRMSNorm):
            rank = self.output.rank
            maps += [(width, values)] if rank is None else [(width, rank), (rank, values)]
        return maps

    def conv_channels(self) -> int:
        """Channels under the short convolution."""
        heads, value_heads, key_dim, value_dim = self.shape()
        if not self.conv:
            return 0
        return heads * key_dim * (2 if self.keys == "linear" else 1) + value_heads * value_dim

    def parameters(self, width: int) -> int:
        heads, value_heads, key_dim, value_dim = self.shape()
        total = sum(a * b for a, b in self.projections(width))
        total += self.decay.weights(width, self.decay_heads(), key_dim)
        total -= sum(a * b for a, b in self.decay.maps(width, self.decay_heads(), key_dim))
        total += self.conv * self.conv_channels()
        maps = 2 if self.keys == "linear" else 1
        total += maps * self.features.weights(heads, key_dim)
        total += value_heads if self.skip else 0
        return total + (0 if isinstance(self.output, PlainOutput) else value_dim)

    def parts(self, width: int, work: Workload) -> list[Part]:
        from .recurrence_parts import parts

        return list(parts(self, width, work))

    def step_parts(self, width: int, work: Workload) -> list[Part]:
        from .recurrence_parts import step_parts

        return list(step_parts(self, width, work))

    def cache_bytes(self, width: int, work: Workload) -> Count:
        from .recurrence_kernels import cache_bytes

        return cache_bytes(self, work)

    def bound_bytes(self, width: int, work: Workload) -> Count:
        from .recurrence_kernels import bound_bytes

        return bound_bytes(self, work)

    def state_bytes(self) -> int:
        """Of one sequence: a float32 state per head, and its normalizer."""
        _, value_heads, key_dim, value_dim = self.shape()
        columns = value_dim + (self.normalizer == "sum")
        return 4 * value_heads * self.features.width(key_dim) * columns
