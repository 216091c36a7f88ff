"""Kernels over interval lists, built ahead of time: they fit, and stay asynchronous.

The head dims of the paper's models are built with every spec (test_gallery_kernels.py).
"""

from __future__ import annotations

import pytest

from mixerlang.kernels import ahead as building
from mixerlang.kernels.attention import ahead
from mixerlang.kernels.attention.variant import Variant

CASES = [("sm_90", 128, 512), ("sm_90", 192, None), ("sm_80", 112, 64)]


@pytest.mark.parametrize(("architecture", "dim", "budget"), CASES)
def test_fits(
    architecture: str,
    dim: int,
    budget: int | None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))
    lists = {"window": 768, "intervals": True, "budget": budget, "score_grad": True}
    variant = Variant(16, 8, dim, dim, dim**-0.5, **lists)  # type: ignore[arg-type]
    jobs = ahead.jobs(variant, "bfloat16", architecture)
    assert len(jobs) == (5 if budget else 4)
    for job in jobs:
        compiled = building.build(job, architecture)
        found = building.resources(compiled)
        assert not found.serialized, job.name
        assert found.spilled == 0, job.name
        assert found.shared <= building.LIMITS[architecture], job.name
        assert not building.miscompiles(compiled), job.name
