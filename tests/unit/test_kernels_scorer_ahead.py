"""Scorer kernels, built ahead of time: they fit, spill nothing, stay asynchronous."""

from __future__ import annotations

import pytest
from assembler import SPARE

from mixerlang.kernels import ahead
from mixerlang.kernels.scorer.ahead import PLACES, job, jobs
from mixerlang.kernels.scorer.network import Network

SMALL = Network(4, 64, 64, (64, 32, 16))
LARGE = Network(4, 128, 128, (128, 64, 32))
CASES = [
    (SMALL, "bfloat16", "sm_90"),
    (LARGE, "bfloat16", "sm_90"),
    (SMALL, "float16", "sm_80"),
    (SMALL, "float32", "sm_90"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))


def check(made: ahead.Job, architecture: str, spare: int = SPARE) -> str:
    """The kernel's code for the GPU, as Triton writes it."""
    compiled = ahead.build(made, architecture)
    found = ahead.resources(compiled)
    assert found.spilled <= spare, (made.function, found)
    assert found.shared <= ahead.LIMITS[architecture]
    assert not found.serialized, made.function
    assert not ahead.miscompiles(compiled)
    return str(compiled.asm["ttgir"])


@pytest.mark.parametrize(("network", "dtype", "architecture"), CASES)
def test_fits_without_spills(network: Network, dtype: str, architecture: str) -> None:
    for made in jobs(network, 0.1, dtype, architecture):
        text = check(made, architecture)
        if (dtype, architecture) == ("bfloat16", "sm_90") and made.function != "scorer_pack":
            assert "ttng.warp_group_dot " in text


@pytest.mark.parametrize("name", ["forward_rolling", "backward_inputs_rolling"])
def test_packed_sequences_fit(name: str) -> None:
    made = job(SMALL, "bfloat16", "sm_90", name, 6554, PLACES[2:])
    check(made, "sm_90", 2 * SPARE)  # 60 bytes by the assembler of Triton 3.7, none by 3.6's


def test_rows_walk_where_that_was_measured() -> None:
    assert SMALL.rolls(2, "sm_90")
    assert not SMALL.rolls(2, "sm_80") and not SMALL.rolls(4, "sm_90")
    assert not LARGE.rolls(2, "sm_90")
    assert not Network(1, 64, 64, (64,), (9,), (2,)).rolls(2, "sm_90")
