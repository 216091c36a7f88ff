"""Recurrence kernels, built ahead of time: they fit, spill little, stay asynchronous."""

from __future__ import annotations

import pytest

from mixerlang.kernels import ahead
from mixerlang.kernels.recurrence.ahead import jobs
from mixerlang.kernels.recurrence.variant import Variant

GDN = Variant(4, 4, 128, 128, 128**-0.5, "scalar", True, True)
CASES = [
    (GDN, "bfloat16", "sm_90"),
    (GDN, "bfloat16", "sm_80"),
    (Variant(2, 4, 256, 256, 1.0, "scalar", True, True), "bfloat16", "sm_90"),
    (Variant(2, 2, 256, 256, 1.0, "scalar", True, True), "bfloat16", "sm_80"),
    (Variant(4, 4, 128, 128, 1.0, "vector", True, True), "bfloat16", "sm_90"),
    (Variant(4, 4, 64, 128, 1.0, "none"), "float16", "sm_90"),
]
FEW = 64
"""Bytes of a thread's registers that may go to memory."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))


@pytest.mark.parametrize(("variant", "dtype", "architecture"), CASES)
def test_fits_without_spills(variant: Variant, dtype: str, architecture: str) -> None:
    for job in jobs(variant, dtype, architecture):
        compiled = ahead.build(job, architecture)
        found = ahead.resources(compiled)
        assert found.spilled <= FEW, (job.function, found)
        assert found.shared <= ahead.LIMITS[architecture], (job.function, found)
        assert not found.serialized, job.function
        assert not ahead.miscompiles(compiled), job.function
        if architecture == "sm_90" and job.function in ("recurrence_scan", "recurrence_reverse"):
            assert "ttng.warp_group_dot " in compiled.asm["ttgir"]
