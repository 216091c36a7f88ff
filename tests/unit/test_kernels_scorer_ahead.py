"""Scorer kernels, built ahead of time: they fit, spill nothing, stay asynchronous."""

from __future__ import annotations

import pytest

from mixerlang.kernels import ahead
from mixerlang.kernels.scorer.ahead import jobs
from mixerlang.kernels.scorer.network import Network

SMALL = Network(4, 64, 64, (64, 32, 16))
LARGE = Network(4, 128, 128, (128, 64, 32))
CASES = [
    (SMALL, "bfloat16", "sm_90"),
    (LARGE, "bfloat16", "sm_90"),
    (SMALL, "float16", "sm_80"),
    (SMALL, "float32", "sm_90"),
]
WIDE = ("scorer_forward", "scorer_backward_inputs", "scorer_backward_weights0")
FEW = 32
"""Bytes of a thread's registers that may go to memory: the assembler now and then spills an
address or two to make room for one more program."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))


@pytest.mark.parametrize(("network", "dtype", "architecture"), CASES)
def test_fits_without_spills(network: Network, dtype: str, architecture: str) -> None:
    for job in jobs(network, 0.1, dtype, architecture):
        compiled = ahead.build(job, architecture)
        found = ahead.resources(compiled)
        assert found.spilled <= FEW, (job.function, found)
        assert found.shared <= ahead.LIMITS[architecture]
        assert not found.serialized, job.function
        assert not ahead.miscompiles(compiled)
        if (dtype, architecture) == ("bfloat16", "sm_90") and job.function in WIDE:
            assert "ttng.warp_group_dot " in compiled.asm["ttgir"]
