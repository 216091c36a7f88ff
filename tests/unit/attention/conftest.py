"""Attention layers and the calls of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixerlang.nn.attention import Attention
from mixerlang.nn.keeps import Keep
from mixerlang.nn.mixer import Aux, Cache, Context
from mixerlang.nn.scorer import CnnScorer
from mixerlang.nn.sequences import Sequences

PATH = "layer"


class Layer:
    """An attention layer in eval mode that is called as a model calls it."""

    def __init__(
        self, keep: Keep, *, dim: int = 12, dtype: torch.dtype = torch.float64, **options: Any
    ) -> None:
        torch.manual_seed(0)
        options = {"heads": 6, "kv_heads": 3, "head_dim": 6, "value_dim": 5} | options
        self.dim, self.dtype = dim, dtype
        self.attention = Attention(dim, keep=keep, **options).to(dtype).eval()
        for module in self.attention.modules():
            if isinstance(module, CnnScorer):  # it starts by keeping everything: let it choose
                torch.nn.init.zeros_(module.proj.bias)

    def x(self, *shape: int, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, self.dim, generator=generator, dtype=torch.float64).to(
            self.dtype
        )

    def cache(
        self, batch: int, max_length: int | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        state = self.attention.new_state(
            batch, max_length, dtype or self.dtype, torch.device("cpu")
        )
        return Cache({PATH: state}, torch.zeros(batch, dtype=torch.int64), max_length)

    def __call__(
        self,
        x: Tensor,
        cache: Cache | None = None,
        lengths: list[int] | None = None,
        aux: Aux | None = None,
    ) -> Tensor:
        starts = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
        sequences = Sequences.of(x, starts, None if cache is None else cache.seen)
        y: Tensor = self.attention(x, Context(sequences, cache, aux, PATH))
        if cache is not None:
            cache.advance(sequences)
        return y

    def in_parts(self, x: Tensor, sizes: list[int], cache: Cache) -> Tensor:
        return torch.cat([self(part, cache) for part in x.split(sizes, dim=1)], dim=1)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v (N, heads, T, D) of a layer without positions and norms."""
        layer = self.attention

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(*y.shape[:2], heads, -1).transpose(1, 2)

        return (
            split(layer.q_proj(x), layer.heads),
            split(layer.k_proj(x), layer.kv_heads),
            split(layer.v_proj(x), layer.kv_heads),
        )

    def naive(self, x: Tensor, sees: Callable[[int, int, int], set[int]]) -> Tensor:
        """The layer's output where query t of KV head g of row n sees the keys sees(n, g, t)."""
        q, k, v = self.heads(x)
        out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=x.dtype)
        share = q.shape[1] // k.shape[1]
        for n, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
            keys = sorted(sees(n, h // share, t))
            if keys:
                scores = k[n, h // share, keys] @ q[n, h, t] * self.attention.scale
                out[n, h, t] = scores.softmax(0) @ v[n, h // share, keys]
        y: Tensor = self.attention.o_proj(out.transpose(1, 2).flatten(2))
        return y


@pytest.fixture(name="Layer")
def layer_class() -> type[Layer]:
    return Layer
