"""Filling a decode cache by kernels, in Triton's interpreter, and built ahead of time."""

from __future__ import annotations

from collections.abc import Callable

import filling
import pytest

from mixerlang.kernels import ahead
from mixerlang.kernels.decode.fill_ahead import jobs


def test_leaves_what_plain_pytorch_leaves(interpreted: Callable[[str], dict[str, list]]) -> None:
    found = interpreted("interpret_fill.py")
    assert list(found) == [name for name, *_ in filling.cases()]
    assert {name: tensors for name, tensors in found.items() if tensors} == {}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ["full", "window, sinks", "norm", "learned"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_moves_whole_vectors_and_spills_nothing(name: str, architecture: str, dtype: str) -> None:
    for job in jobs(filling.LAYOUTS[name], 16, 64, 128, dtype, packed=name == "norm"):
        compiled = ahead.build(job, architecture)
        assert ahead.resources(compiled).spilled == 0, job
        if job.name == "decode fill":
            assert "ld.global.v4.b32" in compiled.asm["ptx"]
            assert "st.global.v4.b32" in compiled.asm["ptx"]
