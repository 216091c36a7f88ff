"""The convolution kernels on a GPU: against float64, twice bit for bit, written everywhere."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import CASES, QKV, Case, errors, tensors
from torch import Tensor

from mixerlang.kernels.convolution import op
from mixerlang.kernels.convolution.cut import Part

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 5e-3, torch.float16: 6e-4, torch.float32: 1e-6}
WIDE = (Part(512, True, 128), Part(512, True, 128), Part(1024, True))
LARGE = {
    "wide rows": Case(WIDE, tokens=1000, batch=3, strided=True),
    "wide, packed": Case(WIDE, tokens=1500, lengths=(1, 700, 2, 3, 1, 793), initial=True),
    "heads of 96": Case((Part(288, True, 96), Part(288, True, 96)), tokens=333, batch=2),
    "heads of 256": Case((Part(512, True, 256), Part(512, True, 256), Part(100)), tokens=70),
    "heads of 600": Case((Part(1200, False, 600),), kernel=5, tokens=40),
}
ALL = CASES | LARGE


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("case", ALL.values(), ids=list(ALL))
def test_agrees_with_float64(case: Case, dtype: torch.dtype) -> None:
    found = errors(case, op.convolve, "cuda", dtype)
    assert all(error < TOLERANCE[dtype] for error in found), found


@pytest.mark.parametrize("name", ["wide rows", "wide, packed"])
def test_the_same_again_bit_for_bit(name: str) -> None:
    given = tensors(LARGE[name], "cuda", torch.bfloat16)
    leaves = [given[each].detach().requires_grad_() for each in ("x", "weight")]
    up = [torch.randn(*leaves[0].shape[:2], p.channels, device="cuda").bfloat16() for p in WIDE]

    def run() -> list[Tensor]:
        found, _ = op.convolve(**given | {"x": leaves[0], "weight": leaves[1]})
        return [*found, *torch.autograd.grad(found, leaves, up)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_offsets_beyond_31_bits() -> None:
    x = torch.randn(1, 2_200_000, 1024, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(1024, 4, device="cuda")
    parts = (Part(512, True, 128), Part(512, True))
    found, _ = op.convolve(x, weight, parts)
    last, _ = op.convolve(x[:, -50:], weight, parts)
    for y, wanted in zip(found, last, strict=True):
        assert torch.equal(y[:, -47:], wanted[:, 3:])


def test_misaligned() -> None:
    given = tensors(CASES["rows"], "cuda", torch.bfloat16)
    wide = torch.randn(2, 37, 119, device="cuda").bfloat16()
    wide[..., 3:115] = given["x"]
    found, _ = op.convolve(**given | {"x": wide[..., 3:115]})
    wanted, _ = op.convolve(**given)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert len(QKV) == len(found)
