"""Maps on each head of q, k or v (N, T, heads, dim)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Feature:
    """A map on each head. `build` gives its layer for `heads` heads of `dim` channels."""

    def width(self, dim: int) -> int:
        """Channels that the map gives for `dim` channels."""
        return dim

    def build(self, heads: int, dim: int) -> nn.Module:
        return Weightless(self)

    def apply(self, x: Tensor) -> Tensor:
        """The map itself, where there is nothing to learn."""
        raise TypeError(f"{type(self).__name__} has weights: build it")


@dataclass(frozen=True)
class Identity(Feature):
    def apply(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Silu(Feature):
    def apply(self, x: Tensor) -> Tensor:
        return F.silu(x)


@dataclass(frozen=True)
class Relu(Feature):
    def apply(self, x: Tensor) -> Tensor:
        return F.relu(x)


@dataclass(frozen=True)
class L2Norm(Feature):
    """x / sqrt(sum(x^2) + 1e-6), per head."""

    def apply(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().sum(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)


@dataclass(frozen=True)
class Softmax(Feature):
    """Softmax over the channels of a head."""

    def apply(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


@dataclass(frozen=True)
class Elu1(Feature):
    """elu(x) + 1 (Katharopoulos et al., 2020)."""

    def apply(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1


@dataclass(frozen=True)
class Taylor(Feature):
    """[1, x / d^(1/4), x (x) x / sqrt(2 d)], so that q . k gives 1 + s + s^2 / 2 with
    s = q . k / sqrt(d) (BASED, 2402.18668)."""

    degree: int = 2

    def width(self, dim: int) -> int:
        return 1 + dim + (dim * dim if self.degree == 2 else 0)

    def apply(self, x: Tensor) -> Tensor:
        x = x * x.shape[-1] ** -0.25
        terms = [torch.ones_like(x[..., :1]), x]
        if self.degree == 2:
            terms.append((x[..., :, None] * x[..., None, :]).flatten(-2) / sqrt(2))
        return torch.cat(terms, dim=-1)


@dataclass(frozen=True)
class Hedgehog(Feature):
    """softmax([W x, -W x]) with a learned W per head (2402.04347)."""

    def width(self, dim: int) -> int:
        return 2 * dim

    def build(self, heads: int, dim: int) -> nn.Module:
        return HedgehogMap(heads, dim)


@dataclass(frozen=True)
class Compose(Feature):
    """a >> b: first a, then b."""

    parts: tuple[Feature, ...]

    def width(self, dim: int) -> int:
        for part in self.parts:
            dim = part.width(dim)
        return dim

    def build(self, heads: int, dim: int) -> nn.Module:
        layers = []
        for part in self.parts:
            layers.append(part.build(heads, dim))
            dim = part.width(dim)
        return nn.Sequential(*layers)


class Weightless(nn.Module):
    """A feature with nothing to learn, as a layer."""

    def __init__(self, feature: Feature) -> None:
        super().__init__()
        self.feature = feature

    def forward(self, x: Tensor) -> Tensor:
        return self.feature.apply(x)


class HedgehogMap(nn.Module):
    """weight (heads, out, in), the identity at first as published."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.eye(self.weight.shape[-1]))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("nthi,hoi->ntho", x, self.weight)
        return torch.cat([y, -y], dim=-1).softmax(-1)
