"""Shipped attention kernels, built ahead of time: they fit, spill nothing, stay asynchronous."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mixerlang.kernels.attention import ahead
from mixerlang.kernels.attention.render import PASSES, passes
from mixerlang.kernels.attention.tiles import choose
from mixerlang.kernels.attention.variant import Variant

HOPPER = [(64, 128), (64, 512), (80, 512), (96, 512), (100, 512), (112, 512), (128, 128)]
HOPPER += [(128, 512), (192, 512), (256, 512)]
CASES = [("sm_90", "bfloat16", *case) for case in HOPPER]
CASES += [("sm_80", "bfloat16", dim, 512) for dim in (64, 112, 128, 256)]
CASES += [(target, "float32", dim, 512) for target in ("sm_90", "sm_80") for dim in (64, 256)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path_factory.getbasetemp() / "kernels"
    monkeypatch.setenv("MIXERLANG_CACHE", str(root))


def build(name: str, architecture: str, dtype: str, dim: int, window: int) -> Any:
    variant = Variant(16, 16, dim, dim, dim**-0.5, window)
    return ahead.build(name, variant, architecture, dtype)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize(("architecture", "dtype", "dim", "window"), CASES)
def test_fits_without_spills(
    name: str, architecture: str, dtype: str, dim: int, window: int, tmp_path: Path
) -> None:
    compiled = build(name, architecture, dtype, dim, window)
    found = ahead.resources(compiled, tmp_path)
    assert found.spilled == 0
    assert found.shared <= ahead.LIMITS[architecture]
    assert not found.serialized
    lines = compiled.asm["ttgir"].splitlines()
    # A transposed accumulator that feeds a product is miscompiled on Hopper.
    assert not [line for line in lines if re.search(r"tt\.trans .* : tensor<[^>]*#mma", line)]
    if dtype == "bfloat16":
        tile = choose(name, Variant(16, 16, dim, dim, 1.0, window), architecture, 2)
        hopper = architecture == "sm_90" and tile.own >= 64
        products = "ttng.warp_group_dot " if hopper else "tt.dot "
        assert any(products in line for line in lines)
        assert tile.stages == 1 or any("async_copy_global_to_local" in line for line in lines)


def test_packed_sinks_and_grouped_heads_fit(tmp_path: Path) -> None:
    variant = Variant(8, 2, 64, 64, 0.125, 512, sinks=4, packed=True, lse_grad=True)
    for name in passes(variant):
        compiled = ahead.build(name, variant, "sm_90")
        assert ahead.resources(compiled).shared <= ahead.LIMITS["sm_90"]


RULES: list[dict[str, Any]] = [
    {"softcap": 30.0},
    {"slopes": True, "sink_logits": True},
    {"strided": 64},
    {"sinks": 4},
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("architecture", "dim"), [("sm_90", 64), ("sm_80", 128)])
def test_rules_fit_the_tiles_of_a_window(
    rule: dict[str, Any], architecture: str, dim: int
) -> None:
    variant = Variant(16, 16, dim, dim, dim**-0.5, 512, **rule)
    for name in passes(variant):
        found = ahead.resources(ahead.build(name, variant, architecture))
        assert found.shared <= ahead.LIMITS[architecture]
        assert found.spilled == 0 and not found.serialized
