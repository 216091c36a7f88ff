"""Every shipped tile, built ahead of time for the sizes that it serves: nothing is spilled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixerlang.codegen.build import Planned, build
from mixerlang.kernels.attention import ahead, render
from mixerlang.kernels.attention.variant import Variant

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(3600)]

DIMS = (64, 80, 96, 100, 112, 128, 192, 256)
LISTS = {"window": 768, "intervals": True, "score_grad": True}
REACHES: list[dict[str, Any]] = [
    *({"window": window} for window in (128, 512, None)),
    *({**LISTS, "budget": budget} for budget in (512, None)),
]
GROUPS = [(4, 4, False), (4, 2, True)]  # heads, KV heads, packed


def planned(dtype: str, architecture: str) -> Iterator[Planned]:
    for dim, reach, (heads, kv_heads, packed) in itertools.product(DIMS, REACHES, GROUPS):
        variant = Variant(heads, kv_heads, dim, dim, dim**-0.5, packed=packed, **reach)
        for name in render.passes(variant):
            job = ahead.job(name, variant, dtype, architecture)
            yield Planned(job, architecture, dtype, None, {})


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_spills_nothing(
    dtype: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    faulty = []
    for each in build(list(planned(dtype, architecture))):
        found = each.resources
        if found is None or found.spilled or found.serialized or not each.fits:
            faulty.append((each.planned.job.name, each.planned.job.tile, each.problem, found))
    assert not faulty
