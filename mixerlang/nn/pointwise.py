"""Token-wise functions with weights or a mode. What has neither is written out in the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """x W (+ bias), to `out` channels."""

    def __init__(self, dim: int, *, out: int, bias: bool = False) -> None:
        super().__init__(dim, out, bias=bias)


class Gate(nn.Module):
    """x * sigmoid(Linear(x)), per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.proj(x))


class Scale(nn.Module):
    """x times a learned weight per channel that starts at `init` (LayerScale, 2103.17239)."""

    def __init__(self, dim: int, *, init: float = 1.0) -> None:
        super().__init__()
        self.init = init
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.init)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Dropout(nn.Dropout):
    """Dropout in training, the identity otherwise."""

    def __init__(self, dim: int, *, p: float) -> None:
        super().__init__(p)


class WeightedSum(nn.Module):
    """Sum of its inputs with one learned weight each, starting at `init`."""

    def __init__(self, dim: int, *, init: tuple[float, ...]) -> None:
        super().__init__()
        self.init = init
        self.weight = nn.Parameter(torch.empty(len(init)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.tensor(self.init))

    def forward(self, *streams: Tensor) -> Tensor:
        return _sum_of_products(self.weight.unbind(), streams)


class GatedSum(nn.Module):
    """The first inputs weighted by sigmoid(Linear(x)) of the last one, a gate per channel."""

    def __init__(self, dim: int, *, streams: int) -> None:
        super().__init__()
        self.streams = streams
        self.proj = nn.Linear(dim, streams * dim, bias=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        *streams, x = inputs
        gates = torch.sigmoid(self.proj(x)).chunk(self.streams, dim=-1)
        return _sum_of_products(gates, streams)


def _sum_of_products(factors: Sequence[Tensor], streams: Sequence[Tensor]) -> Tensor:
    terms = [factor * x for factor, x in zip(factors, streams, strict=True)]
    return torch.stack(terms).sum(0)
