"""The decode kernels, built ahead of time: they fit and spill nothing."""

from __future__ import annotations

from typing import Any

import pytest

from mixerlang.kernels import ahead
from mixerlang.kernels.decode.ahead import jobs
from mixerlang.kernels.decode.cut import Shape
from mixerlang.kernels.decode.layout import Layout

PAPER = Layout(768, budget=512, sinks=4, kind="learned", lookahead=6)
BYTES = {"bfloat16": 2, "float32": 4}
CASES: list[tuple[Layout, tuple[int, ...], str, dict[str, Any]]] = [
    (PAPER, (1, 16, 16, 64, 64), "bfloat16", {}),
    (PAPER, (1, 16, 16, 64, 64), "float32", {}),
    (PAPER, (8, 32, 8, 128, 128), "bfloat16", {}),
    (PAPER, (1, 16, 16, 64, 64), "bfloat16", {"batch": 64}),
    (PAPER, (8, 16, 2, 256, 256), "bfloat16", {"softcap": 30.0, "slopes": True}),
    (PAPER, (2, 8, 8, 256, 256), "float32", {}),
    (Layout(), (1, 32, 4, 128, 128), "bfloat16", {"sink_logits": True}),
    (Layout(1024, sinks=4, rate=2), (4, 6, 6, 100, 80), "bfloat16", {}),
    (Layout(300, budget=8192, kind="random"), (8, 4, 4, 64, 64), "bfloat16", {}),
    (Layout(300, budget=128, kind="norm"), (1, 4, 4, 64, 64), "bfloat16", {}),
    (Layout(), (1, 8, 8, 128, 128), "bfloat16", {"sink_logits": True}),
    (Layout(1024, sinks=4, rate=2), (1, 6, 6, 100, 80), "bfloat16", {"softcap": 30.0}),
    (PAPER, (1, 4, 4, 256, 256), "bfloat16", {"slopes": True, "batch": 64}),
    (PAPER, (1, 4, 4, 192, 256), "float32", {}),
]


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_fits_without_spills(case: int, architecture: str) -> None:
    layout, sizes, dtype, rule = CASES[case]
    for job in jobs(layout, Shape(*sizes, BYTES[dtype]), dtype, architecture, **rule):
        compiled = ahead.build(job, architecture)
        found = ahead.resources(compiled)
        assert found.spilled == 0, job
        assert found.shared <= ahead.LIMITS[architecture], job
        assert not ahead.miscompiles(compiled)
        if job.name.startswith("decode attend") and dtype == "bfloat16":
            assert "async_copy_global_to_local" in compiled.asm["ttgir"]
