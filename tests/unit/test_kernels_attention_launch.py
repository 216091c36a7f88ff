"""Which tile a launch takes, by the GPU that its tensors lie on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixerlang.kernels import tuned
from mixerlang.kernels.attention import launch
from mixerlang.kernels.attention.render import state
from mixerlang.kernels.attention.tiles import choose
from mixerlang.kernels.attention.variant import Tile, Variant

VARIANT = Variant(2, 1, 16, 16, 0.25, window=77)
SEARCHED = Tile(128, 16, 8, 4)


def test_two_gpus_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile that was searched for on one of them is not the other's."""
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    options = SEARCHED.options("forward")
    tuned.save("Searched", VARIANT.stem("forward"), state(), 2, {"options": options})
    first, second = torch.empty(1).bfloat16(), torch.empty(1).bfloat16()
    names = {id(first): "Searched", id(second): "Another"}

    def gpu(x: Tensor) -> str:
        return names[id(x)]

    monkeypatch.setattr(launch, "gpu", gpu)
    found = [launch.launcher("forward", VARIANT, x).constants for x in (first, second, first)]
    shipped = choose("forward", VARIANT, "sm_90", 2).options("forward")
    for constants, expected in zip(found, (options, shipped, options), strict=True):
        assert {name: constants[name] for name in expected} == expected
    assert options != shipped


def test_a_tensor_on_no_gpu_takes_what_ships() -> None:
    assert launch.gpu(torch.empty(1)) == ""
    assert launch.architecture(torch.empty(1)) == "sm_90"
