"""The rotary kernels on a GPU: against float32 arithmetic by plain torch, twice bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.rotary import dense, op

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 3e-6}

SHAPES = [
    # batch, tokens, heads, dim, fraction
    (1, 1, 1, 64, 1.0),
    (8, 1, 16, 64, 1.0),
    (2, 333, 6, 64, 1.0),
    (1, 70, 5, 80, 1.0),
    (3, 70, 2, 96, 0.5),
    (1, 70, 3, 100, 0.5),
    (2, 70, 3, 112, 1.0),
    (1, 1025, 4, 128, 1.0),
    (1, 70, 2, 192, 0.25),
    (1, 70, 2, 256, 1.0),
    (1, 40, 2, 15, 1.0),
]
Shape = tuple[int, int, int, int, float]


def draw(shape: Shape, dtype: torch.dtype, norm: bool, own: bool) -> tuple[Tensor, ...]:
    """x, dy, positions up to a million, and a weight (empty without a norm)."""
    batch, tokens, heads, dim, _ = shape
    x, dy = (torch.randn(batch, tokens, heads, dim, device="cuda").to(dtype) for _ in range(2))
    positions = torch.randint(0, 1 << 20, (batch if own else 1, tokens), device="cuda")
    return x, dy, positions, torch.randn(dim if norm else 0, device="cuda")


def run(x: Tensor, dy: Tensor, positions: Tensor, weight: Tensor, fraction: float) -> list[Tensor]:
    leaves = [leaf.detach().requires_grad_() for leaf in (x, weight) if leaf.numel()]
    own = leaves[1] if len(leaves) == 2 else None
    y = op.rotate(leaves[0], positions, theta=1e4, fraction=fraction, weight=own)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def compare(x: Tensor, dy: Tensor, positions: Tensor, weight: Tensor, fraction: float) -> None:
    found = run(x, dy, positions, weight, fraction)
    rule = (positions, weight if weight.numel() else None, 1e4)
    half = int(x.shape[-1] * fraction) // 2
    gradients = dense.backward(dy.float(), x.float(), *rule, half, 1e-6)
    expected = [dense.forward(x.float(), *rule, half, 1e-6), *gradients]
    for mine, theirs in zip(found, expected, strict=False):
        assert theirs is not None
        error = (mine.float() - theirs).norm() / theirs.norm()
        assert error < TOLERANCE[mine.dtype], error
    again = run(x, dy, positions, weight, fraction)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: Shape, dtype: torch.dtype, norm: bool) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        compare(*draw(shape, dtype, norm, own=seed > 0), shape[4])


def test_strided_and_misaligned() -> None:
    torch.manual_seed(0)
    x, dy, positions, weight = draw((2, 90, 3, 64, 1.0), torch.bfloat16, True, True)
    wide = torch.randn(2, 3, 90, 70, device="cuda").bfloat16()[..., 3:67].transpose(1, 2)
    compare(wide, dy, positions, weight, 1.0)
    compare(x, wide, positions, weight, 1.0)
    assert run(x, dy.sum().expand(x.shape), positions, weight, 1.0)[1].isfinite().all()


def test_offsets_beyond_31_bits() -> None:
    x = torch.randn(1, 2_200_000, 8, 128, device="cuda", dtype=torch.bfloat16)
    positions = torch.arange(x.shape[1], device="cuda")[None]
    y = op.rotate(x, positions, theta=1e4)
    heads_first = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(op.rotate(heads_first, positions, theta=1e4), y)
    last = dense.forward(x[:, -50:].float(), positions[:, -50:], None, 1e4, 64, 1e-6)
    assert (y[:, -50:].float() - last).norm() / last.norm() < 4e-3


def test_float64_stays_exact() -> None:
    x = torch.randn(1, 9, 2, 16, device="cuda", dtype=torch.float64)
    positions = torch.arange(9, device="cuda")[None]
    found = op.rotate(x, positions, theta=1e4)
    torch.testing.assert_close(found.cpu(), op.rotate(x.cpu(), positions.cpu(), theta=1e4))
