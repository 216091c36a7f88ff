"""The rotary op on the CPU: mathematics, gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.rotary import op
from mixerlang.nn.norm import RMSNorm
from mixerlang.nn.position import apply_rope

CASES = [
    # batch, tokens, heads, dim, fraction, norm, own positions
    (1, 1, 1, 2, 1.0, False, False),
    (2, 5, 3, 8, 1.0, True, True),
    (2, 5, 2, 10, 0.5, True, False),
    (1, 4, 2, 7, 1.0, False, False),
    (1, 3, 2, 3, 0.3, True, False),  # nothing turns
]
Case = tuple[int, int, int, int, float, bool, bool]


def make(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None]:
    batch, tokens, heads, dim, _, norm, own = case
    torch.manual_seed(dim)
    x = torch.randn(batch, tokens, heads, dim, dtype=dtype, requires_grad=True)
    positions = torch.randint(0, 3000, (batch if own else 1, tokens))
    weight = torch.randn(dim, dtype=dtype, requires_grad=True) if norm else None
    return x, positions, weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_is_the_norm_and_then_the_rotation(case: Case, dtype: torch.dtype) -> None:
    x, positions, weight = make(case, dtype)
    expected = x
    if weight is not None:
        norm = RMSNorm(x.shape[-1], eps=1e-3)
        norm.weight.data = weight.data
        expected = norm(x)
    where = positions.expand(x.shape[:2])
    expected = apply_rope(expected.transpose(1, 2), where, 500.0, case[4]).transpose(1, 2)
    found = op.rotate(x, positions, theta=500.0, fraction=case[4], weight=weight, eps=1e-3)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()


@pytest.mark.parametrize("case", CASES)
def test_gradients(case: Case) -> None:
    x, positions, weight = make(case)

    def run(x: Tensor, weight: Tensor | None) -> Tensor:
        return op.rotate(x, positions, theta=500.0, fraction=case[4], weight=weight, eps=1e-3)

    assert torch.autograd.gradcheck(run, (x, weight))


def test_rounds_once() -> None:
    """bfloat16 in and out, float32 between: off by half a unit in the last place at most."""
    x, positions, weight = make((2, 50, 3, 16, 1.0, True, True), torch.float32)
    x = x.detach().bfloat16()
    found = op.rotate(x, positions, theta=1e4, weight=weight)
    exact = op.rotate(x.float(), positions, theta=1e4, weight=weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES[:3])
def test_is_an_op_to_torch(case: Case) -> None:
    x, positions, weight = make(case, torch.float32)
    half = int(case[3] * case[4]) // 2
    torch.library.opcheck(op._rotate, (x, positions, weight, 1e4, half, 1e-6))
    strided = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    torch.library.opcheck(op._rotate, (strided, positions, weight, 1e4, half, 1e-6))


def test_compiles_without_a_break() -> None:
    x, positions, weight = make(CASES[1], torch.float32)

    def run(x: Tensor) -> Tensor:
        return op.rotate(x * 2, positions, theta=1e4, weight=weight).sin()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for function in (run, compiled):
        function(x).sum().backward()
    assert x.grad is not None
    grad = torch.autograd.grad(run(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, 2 * grad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 4)}, "heads, D"),
        ({"x": torch.zeros(2, 5, 3, 2000)}, "serve 1 to 1024"),
        ({"positions": torch.zeros(3, 5, dtype=torch.int64)}, "positions are"),
        ({"positions": torch.zeros(1, 5)}, "integers"),
        ({"weight": torch.zeros(7)}, r"weight is \(8,\)"),
        ({"theta": 0.0}, "theta is positive"),
        ({"fraction": 1.5}, "fraction in"),
    ],
)
def test_refuses_what_it_would_read_beyond(change: dict[str, object], message: str) -> None:
    x, positions, weight = make(CASES[1])
    arguments = {"x": x, "positions": positions, "weight": weight, "theta": 1e4} | change
    with pytest.raises(ValueError, match=message):
        op.rotate(**arguments)  # type: ignore[arg-type]
