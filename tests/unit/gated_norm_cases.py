"""Cases of the gated norm, and what it gives, in float64 by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """packed: gate and x are parts of wider rows, as of one projection."""

    batch: int
    tokens: int
    heads: int
    dim: int
    activation: str = "silu"
    gate: bool = True
    packed: bool = False


CASES = {
    "one token": Case(1, 1, 1, 8),
    "rows": Case(2, 21, 3, 16, packed=True),
    "sigmoid": Case(2, 21, 3, 16, "sigmoid"),
    "no gate": Case(2, 9, 4, 32, gate=False),
    "heads of 100": Case(1, 35, 3, 100, packed=True),
    "heads of 7": Case(3, 5, 5, 7, "sigmoid", packed=True),
    "one channel": Case(2, 3, 2, 1),
}


def tensors(
    case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight, gate."""
    torch.manual_seed(case.dim)
    shape = (case.batch, case.tokens, case.heads, case.dim)

    def draw() -> Tensor:
        if not case.packed:
            return torch.randn(shape, device=device).to(dtype)
        wide = torch.randn(*shape[:2], 8 + case.heads * case.dim, device=device).to(dtype)
        return wide[..., 8:].unflatten(-1, shape[2:])

    return draw(), torch.randn(case.dim, device=device), draw() if case.gate else None


def expected(x: Tensor, weight: Tensor, gate: Tensor | None, activation: str, eps: float) -> Tensor:
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    if gate is None:
        return y
    return y * gate.sigmoid() * (gate if activation == "silu" else 1)


def errors(
    case: Case,
    gated_norm: Callable[..., Tensor],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[float]:
    """Relative errors of the result and of all gradients."""
    given = [each for each in tensors(case, device, dtype) if each is not None]
    ours = [each.detach().requires_grad_() for each in given]
    exact = [each.detach().double().requires_grad_() for each in given]
    rule = {"activation": case.activation, "eps": 1e-3}
    found = gated_norm(*ours, **rule)
    wanted = expected(*(*exact, None)[:3], **rule)
    up = torch.randn(found.shape, device=device).to(dtype)
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, ours, up),
        torch.autograd.grad(wanted, exact, up.double()),
        strict=True,
    )
    return [((a.detach().double() - b).norm() / b.norm()).item() for a, b in pairs]
