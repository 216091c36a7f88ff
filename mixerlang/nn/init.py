"""How the weights of a model start."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Protocol

from torch import nn

MAPS = (nn.Linear, nn.Embedding)
"""What an init sets. Every other layer starts as its own `reset_parameters` says."""

INTO_THE_STREAM = ("o_proj", "down_proj")
"""Names of the projections that mixers and ffns end with."""


class Init(Protocol):
    """Sets the linear maps and embeddings of a model of `depth` layers."""

    def __call__(self, model: nn.Module, depth: int) -> None: ...


@dataclass(frozen=True)
class Normal:
    """Linear maps and embeddings from N(0, std^2), biases zero.

    rescale: projections into the residual stream are divided by sqrt(2 * depth), so that the
    stream does not grow with depth (GPT-2).
    """

    std: float = 0.02
    rescale: bool = True

    def __call__(self, model: nn.Module, depth: int) -> None:
        for path, module in model.named_modules():
            if not isinstance(module, MAPS):
                continue
            into = self.rescale and path.rpartition(".")[2] in INTO_THE_STREAM
            nn.init.normal_(module.weight, std=self.std / sqrt(2 * depth) if into else self.std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
