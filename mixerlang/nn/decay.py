"""What the state of a recurrence forgets, and what a token writes.

A decay's layer maps x (B, T, dim) to the log of the decay, at most 0 and in float32, and to a step
for the updates that take it from the decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .projection import projection

LogDecay = tuple[Tensor | None, Tensor | None]
"""log a, (B, T, value heads) or (B, T, heads, key_dim) or None for 1; and the step."""


@dataclass(frozen=True)
class Shape:
    """Heads of q and k, heads of v, and channels of a head of k."""

    heads: int
    value_heads: int
    key_dim: int


class Decay:
    """A decay. `build` gives its layer."""

    def build(self, dim: int, shape: Shape) -> DecayMap:
        raise TypeError(f"{type(self).__name__} has no layer")


@dataclass(frozen=True)
class NoDecay(Decay):
    def build(self, dim: int, shape: Shape) -> DecayMap:
        return NoDecayMap()


@dataclass(frozen=True)
class Fixed(Decay):
    """One constant per head. retnet: log(1 - 2^(-5 - h)); lightning: -2^(-8 (h + 1) / heads)."""

    schedule: str = "retnet"

    def build(self, dim: int, shape: Shape) -> DecayMap:
        return FixedDecay(self.schedule, shape.value_heads)


@dataclass(frozen=True)
class Scalar(Decay):
    """Per head and token: log a = -exp(A_log) softplus(Linear(x) + dt_bias) (Mamba2, GDN)."""

    def build(self, dim: int, shape: Shape) -> DecayMap:
        return ScalarDecay(dim, shape.value_heads)


@dataclass(frozen=True)
class Vector(Decay):
    """Per key channel and token.

    sigmoid: log a = logsigmoid(Linear(x)) / temperature (GLA, HGRN2);
    softplus: log a = -exp(A_log) softplus(Linear(x) + dt_bias) (KDA), A_log per head.
    """

    form: str = "sigmoid"
    rank: int | None = None
    temperature: float = 1.0

    def build(self, dim: int, shape: Shape) -> DecayMap:
        if self.form == "sigmoid":
            return SigmoidDecay(dim, shape, self.rank, self.temperature)
        return SoftplusDecay(dim, shape, self.rank)


class Update:
    """How a token enters the state."""

    @property
    def gated(self) -> bool:
        """Whether b is a sigmoid of a linear map of its own."""
        return True


@dataclass(frozen=True)
class Additive(Update):
    """S += b k v^T; b is 1, the softplus step of the scalar decay (Mamba2's dt), or a gate."""

    step: bool = False
    gate: bool = False

    @property
    def gated(self) -> bool:
        return self.gate


@dataclass(frozen=True)
class Delta(Update):
    """S += b k (v - S^T k)^T, b = scale * sigmoid(Linear(x)) per head and token."""

    scale: float = 1.0


# --------------------------------------------------------------------------------- the layers


class DecayMap(nn.Module):
    """`of` maps what a_proj makes of x, or x itself where there is no a_proj."""

    a_proj: nn.Module | None

    def of(self, a: Tensor) -> LogDecay:
        raise TypeError(f"{type(self).__name__} has no formula")

    def forward(self, x: Tensor) -> LogDecay:
        return self.of(x if self.a_proj is None else self.a_proj(x))


class NoDecayMap(DecayMap):
    def __init__(self) -> None:
        super().__init__()
        self.a_proj = None

    def of(self, a: Tensor) -> LogDecay:
        return None, None


class FixedDecay(DecayMap):
    def __init__(self, schedule: str, heads: int) -> None:
        super().__init__()
        self.a_proj = None
        self.schedule = schedule
        self.heads = heads

    def of(self, a: Tensor) -> LogDecay:
        return self.log_decay(a).expand(*a.shape[:2], -1), None

    def log_decay(self, like: Tensor) -> Tensor:
        """(heads,), at least float32."""
        head = torch.arange(self.heads, dtype=torch.float64, device=like.device)
        if self.schedule == "retnet":
            log_decay = torch.log1p(-torch.exp2(-5 - head))
        else:
            log_decay = -torch.exp2(-8 * (head + 1) / self.heads)
        return widen(log_decay, like.dtype)


class ScalarDecay(DecayMap):
    """Also gives its softplus as the step."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.a_proj = nn.Linear(dim, heads, bias=False)
        self.A_log = nn.Parameter(torch.empty(heads))
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init_A_log(self.A_log)
        init_dt_bias(self.dt_bias)

    def of(self, a: Tensor) -> LogDecay:
        step = F.softplus(widen(a) + widen(self.dt_bias))
        return -widen(self.A_log).exp() * step, step


class SigmoidDecay(DecayMap):
    def __init__(self, dim: int, shape: Shape, rank: int | None, temperature: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.temperature = temperature
        self.a_proj = projection(dim, shape.heads * shape.key_dim, rank, bias=True)

    def of(self, a: Tensor) -> LogDecay:
        log_decay = F.logsigmoid(widen(a)) / self.temperature
        return torch.unflatten(log_decay, -1, (self.heads, -1)), None


class SoftplusDecay(DecayMap):
    def __init__(self, dim: int, shape: Shape, rank: int | None) -> None:
        super().__init__()
        self.heads = shape.heads
        self.a_proj = projection(dim, shape.heads * shape.key_dim, rank)
        self.A_log = nn.Parameter(torch.empty(shape.heads))
        self.dt_bias = nn.Parameter(torch.empty(shape.heads * shape.key_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init_A_log(self.A_log)
        init_dt_bias(self.dt_bias)

    def of(self, a: Tensor) -> LogDecay:
        step = F.softplus(widen(a) + widen(self.dt_bias))
        rate = widen(self.A_log).exp()[:, None]
        return -rate * torch.unflatten(step, -1, (self.heads, -1)), None


def widen(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x in at least float32, of its own dtype or of `dtype`."""
    return x.to(torch.promote_types(dtype or x.dtype, torch.float32))


def init_A_log(A_log: Tensor) -> None:
    """log of uniform(1, 16), as Mamba2."""
    with torch.no_grad():
        A_log.uniform_(1, 16).log_()


def init_dt_bias(dt_bias: Tensor) -> None:
    """softplus(dt_bias) is log-uniform in [1e-3, 0.1], as Mamba2."""
    with torch.no_grad():
        dt = dt_bias.uniform_(log(1e-3), log(0.1)).exp_()
        dt_bias.add_(torch.log(-torch.expm1(-dt)))
