"""The kernel of a recurrence's decoding step on a GPU: walks of steps, some of whose tokens are
taken back, against float64; twice bit for bit, written everywhere."""

from __future__ import annotations

import pytest
import torch
from recurrence_step_cases import RULES, SHORT, SIZES, draw, errors, walk

from mixerlang.kernels.recurrence.step_op import StepRule, new_state

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

GDN = {"conv": 4, "activation": "silu", "norm": "l2norm", "value_activation": "silu",
       "delta": True, "step": "sigmoid", "decay": "scalar", "output": "silu"}  # fmt: skip
LARGE = StepRule(16, 16, 128, 128, **GDN, scale=128**-0.5)
WIDE = StepRule(3, 6, 256, 256, **GDN, scale=1 / 16)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_walks(rule: StepRule) -> None:
    found = errors(rule, torch.bfloat16, "cuda", 3, sizes=SHORT)
    assert all(error < 5e-3 for error in found), found
    found = errors(rule, torch.float32, "cuda", 3, sizes=[(1, 0), (1, 0)])
    assert all(error < 1e-6 for error in found), found


@pytest.mark.parametrize("batch", [3, 40], ids=["whole heads", "halves of heads"])
def test_a_long_walk(batch: int) -> None:
    found = errors(LARGE, torch.bfloat16, "cuda", batch, sizes=SIZES)
    assert all(error < 5e-3 for error in found), found


def test_wide_heads() -> None:
    found = errors(WIDE, torch.bfloat16, "cuda", 3, sizes=[(1, 0), (2, 1), (1, 0)])
    assert all(error < 5e-3 for error in found), found


def test_a_state_of_half_precision() -> None:
    found = errors(LARGE, torch.bfloat16, "cuda", 3, torch.bfloat16, SHORT)
    assert all(error < 2e-2 for error in found), found


def test_the_same_again_bit_for_bit() -> None:
    inputs, weights = draw(LARGE, 40, 8, torch.bfloat16, "cuda")

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        state = new_state(LARGE, 40, torch.bfloat16, torch.device("cuda"))
        return walk(LARGE, state, inputs, weights, SHORT)

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
