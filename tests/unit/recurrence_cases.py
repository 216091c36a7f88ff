"""Recurrences to try kernels on, and what float64, token by token, makes of them."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mixerlang.kernels.recurrence import reference


class Case(NamedTuple):
    """sizes: heads, value heads, channels of k and of v. strength: log-decays lie between 0 and
    minus this. mode: random; repeated (keys nearly alike, b near 2); mixed (two tokens of three
    decay, the third hardly); ones. edges: of packed sequences."""

    batch: int = 1
    tokens: int = 70
    sizes: tuple[int, int, int, int] = (1, 1, 16, 16)
    decay: str = "scalar"
    delta: bool = True
    step: bool = True
    strength: float = 1.0
    mode: str = "random"
    edges: list[int] | None = None

    @property
    def scale(self) -> float:
        scale: float = self.sizes[2] ** -0.5
        return scale


class Tensors(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None
    b: Tensor | None
    state: Tensor | None


class Expected(NamedTuple):
    """o, the last state, and gradients of what is there, from the gradients do and dlast."""

    o: Tensor
    last: Tensor
    found: tuple[Tensor, ...]
    do: Tensor
    dlast: Tensor

    def given(self, o: Tensor, last: Tensor) -> list[Tensor]:
        return [self.do.to(o), self.dlast.to(last)]


def make(
    case: Case, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> Tensors:
    """q and k of unit length, which keeps the delta rule stable; g, b and states of float32."""
    generator = torch.Generator(device).manual_seed(seed)
    batch, tokens, (heads, value_heads, key_dim, value_dim) = case[:3]

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    q, k = (randn(batch, tokens, heads, key_dim) for _ in range(2))
    v = randn(batch, tokens, value_heads, value_dim)
    if case.mode == "repeated":
        k = k[:, :1] + 0.05 * k
    if case.mode == "ones":
        q, k, v = (torch.ones_like(x) for x in (q, k, v))
    q, k = (normalize(x, dim=-1) for x in (q, k))
    channels = (heads, key_dim) if case.decay == "vector" else (value_heads,)
    g = -case.strength * rand(batch, tokens, *channels)
    if case.mode == "mixed":
        g[:, ::3] *= 1e-6
    b = (2 if case.delta else 1) * rand(batch, tokens, value_heads)
    if case.mode == "repeated":
        b = torch.full_like(b, 1.99)
    sequences = batch if case.edges is None else len(case.edges) - 1
    return Tensors(
        q.to(dtype),
        k.to(dtype),
        v.to(dtype),
        None if case.decay == "none" else g,
        b if case.step else None,
        randn(sequences, value_heads, key_dim, value_dim),
    )


def oracle(tensors: Tensors, case: Case, seed: int = 0) -> Expected:
    """In float64."""
    leaves = [None if x is None else x.detach().double().requires_grad_() for x in tensors]
    o, last = _outputs(leaves, case)
    generator = torch.Generator(o.device).manual_seed(seed)
    do, dlast = (
        torch.randn(x.shape, generator=generator, device=o.device).to(tensors.q.dtype).double()
        for x in (o, last)
    )
    wanted = [x for x in leaves if x is not None]
    found = torch.autograd.grad([o, last], wanted, [do, dlast])
    return Expected(o.detach(), last.detach(), found, do, dlast)


def _outputs(leaves: list[Tensor | None], case: Case) -> tuple[Tensor, Tensor]:
    *by_token, state = leaves
    edges = case.edges or [0, case.tokens]
    outputs, states = [], []
    for n, (low, high) in enumerate(pairwise(edges)):
        q, k, v, g, b = (None if x is None else x[:, low:high] for x in by_token)
        assert q is not None and k is not None and v is not None and state is not None
        first = state if case.edges is None else state[n : n + 1]
        o, last, _ = reference.recurrence(q, k, v, g, b, first, delta=case.delta, scale=case.scale)
        outputs.append(o)
        states.append(last)
    return torch.cat(outputs, 1), torch.cat(states)


def relative(found: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of what is expected."""
    expected = expected.detach().double()
    size = float(expected.norm().clamp_min(1e-30))
    return float((found.detach().double() - expected).norm()) / size
