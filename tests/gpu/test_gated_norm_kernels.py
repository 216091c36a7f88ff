"""The gated norm's kernels on a GPU: against float64, twice bit for bit, written everywhere."""

from __future__ import annotations

import pytest
import torch
from gated_norm_cases import CASES, Case, errors, tensors
from torch import Tensor

from mixerlang.kernels.norm import gated_op as op

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 5e-3, torch.float16: 6e-4, torch.float32: 1e-6}
LARGE = {
    "long": Case(2, 1500, 16, 128, packed=True),
    "heads of 256": Case(1, 333, 6, 256, "sigmoid", packed=True),
    "heads of 96": Case(1, 333, 5, 96),
    "wide": Case(1, 40, 1, 3000),
    "long, no gate": Case(1, 3000, 8, 64, gate=False),
}
ALL = CASES | LARGE


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("case", ALL.values(), ids=list(ALL))
def test_agrees_with_float64(case: Case, dtype: torch.dtype) -> None:
    found = errors(case, op.gated_norm, "cuda", dtype)
    assert all(error < TOLERANCE[dtype] for error in found), found


def test_the_same_again_bit_for_bit() -> None:
    x, weight, gate = tensors(LARGE["long"], "cuda", torch.bfloat16)
    assert gate is not None
    leaves = [each.detach().requires_grad_() for each in (x, weight, gate)]
    up = torch.randn_like(x)

    def run() -> list[Tensor]:
        y = op.gated_norm(*leaves)
        return [y, *torch.autograd.grad(y, leaves, up)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_offsets_beyond_31_bits() -> None:
    x = torch.randn(1, 2_200_000, 8, 128, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(128, device="cuda")
    found = op.gated_norm(x, weight, x)
    assert torch.equal(found[:, -50:], op.gated_norm(x[:, -50:], weight, x[:, -50:]))
