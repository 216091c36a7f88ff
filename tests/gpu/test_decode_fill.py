"""Filling a decode cache on a GPU: what kernels leave is what plain PyTorch leaves, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mixerlang.kernels.decode.layout import Layout

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import filling
from filling import Sizes

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_kind_and_call(dtype: torch.dtype) -> None:
    sizes = Sizes(dtype=dtype, device="cuda")
    wrong = {name: filling.differences(*case, sizes) for name, *case in filling.cases()}
    assert not {name: tensors for name, tensors in wrong.items() if tensors}


@pytest.mark.parametrize(("dim", "value_dim"), [(64, 64), (100, 128), (256, 32)])
@pytest.mark.parametrize("shape", ["rows", "packed"])
def test_sizes_of_models(
    dim: int, value_dim: int, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a program looks at once; more slots than are filled, and fewer."""
    monkeypatch.setitem(filling.SHAPES, "rows", (2, 5000))
    sizes = Sizes(5, dim, value_dim, torch.bfloat16, "cuda")
    for budget in (12, 512, 6000):
        layout = Layout(100, budget=budget, sinks=4, kind="learned", lookahead=6)
        for older in (False, True)[: 1 + (shape == "rows")]:
            assert filling.differences(layout, shape, older, sizes) == []
