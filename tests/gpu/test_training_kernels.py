"""SwiGLU and cross-entropy on a GPU: against plain PyTorch in float64, twice bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels.entropy.op import entropy
from mixerlang.kernels.swiglu.op import swiglu
from mixerlang.nn.loss import cross_entropy

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 1e-6}


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    error = (found.double() - expected).norm() / expected.norm().clamp(min=1e-30)
    assert error < tolerance, error


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 333, 100), (1, 77, 2816), (3, 5, 4099)])
def test_swiglu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        gate, up, dout = (torch.randn(shape, device="cuda").to(dtype) for _ in range(3))

        def run(gate: Tensor, up: Tensor, dout: Tensor) -> list[Tensor]:
            leaves = [x.detach().requires_grad_() for x in (gate, up)]
            plain = gate.dtype == torch.float64
            out = F.silu(leaves[0]) * leaves[1] if plain else swiglu(*leaves)
            return [out.detach(), *torch.autograd.grad(out, leaves, dout)]

        found, again = (run(gate, up, dout) for _ in range(2))
        expected = run(gate.double(), up.double(), dout.double())
        for mine, same, theirs in zip(found, again, expected, strict=True):
            assert torch.equal(mine, same)
            close(mine, theirs, TOLERANCE[dtype])


def test_swiglu_of_strided_inputs() -> None:
    both = torch.randn(2, 90, 2 * 100, device="cuda", dtype=torch.bfloat16)
    gate, up = both.chunk(2, -1)
    close(swiglu(gate, up), F.silu(gate.double()) * up.double(), 4e-3)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (7, 257), (130, 4097), (64, 32_000)])
def test_entropy(rows: int, vocab: int, dtype: torch.dtype) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        logits = (4 * torch.randn(rows, vocab + 3, device="cuda")).to(dtype)[:, :vocab]
        targets = torch.randint(vocab, (rows,), device="cuda")
        targets[rows // 2 + 1 :: 3] = -100
        dlosses = torch.randn(rows, device="cuda")

        def run(logits: Tensor, targets: Tensor, dlosses: Tensor) -> list[Tensor]:
            leaf = logits.detach().requires_grad_()
            if logits.dtype == torch.float64:
                losses = F.cross_entropy(leaf, targets, reduction="none")
            else:
                losses = entropy(leaf, targets)
            return [losses.detach(), torch.autograd.grad(losses, leaf, dlosses)[0]]

        found, again = (run(logits, targets, dlosses) for _ in range(2))
        expected = run(logits.double(), targets, dlosses.double())
        assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))
        close(found[0], expected[0], 1e-6)
        close(found[1], expected[1], TOLERANCE[dtype])


def test_entropy_beyond_31_bits() -> None:
    logits = torch.randn(70_000, 32_000, device="cuda", dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(32_000, (70_000,), device="cuda")
    losses = entropy(logits, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    last = logits.detach()[-50:].double().requires_grad_()
    expected = F.cross_entropy(last, targets[-50:], reduction="none")
    close(losses[-50:], expected, 1e-6)
    close(gradient[-50:], torch.autograd.grad(expected.sum(), last)[0], 4e-3)


def test_a_target_that_is_no_column_has_no_loss() -> None:
    losses = entropy(torch.zeros(3, 8, device="cuda"), torch.tensor([0, 8, -1], device="cuda"))
    assert losses.isnan().tolist() == [False, True, True]


def test_mean_over_what_counts() -> None:
    logits = torch.randn(2, 5, 40, device="cuda", dtype=torch.bfloat16)
    targets = torch.randint(40, (2, 5), device="cuda")
    targets[0, :3] = -100
    expected = F.cross_entropy(logits.flatten(0, 1).double(), targets.flatten())
    close(cross_entropy(logits, targets), expected, 1e-6)
