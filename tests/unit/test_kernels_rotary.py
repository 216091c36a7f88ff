"""The rotary kernels without a GPU: in Triton's interpreter, and built ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixerlang.kernels.ahead import build, resources
from mixerlang.kernels.rotary.ahead import jobs
from mixerlang.kernels.rotary.cut import cut

ROOT = Path(__file__).parents[2]


def test_agrees_with_plain_torch() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment |= {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    script = Path(__file__).with_name("interpret_rotary.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors: dict[str, list[float]] = json.loads(done.stdout)
    assert len(errors) == 8
    wrong = {case: values for case, values in errors.items() if not all(e < 1e-6 for e in values)}
    assert not wrong


@pytest.mark.parametrize("architecture", ["sm_90", "sm_80"])
@pytest.mark.parametrize(
    ("dim", "half", "dtype", "norm"),
    [
        (64, 32, "bfloat16", False),
        (64, 32, "bfloat16", True),
        (100, 25, "bfloat16", True),
        (128, 64, "float32", True),
        (256, 128, "bfloat16", True),
    ],
)
def test_fits_and_moves_whole_vectors(
    architecture: str, dim: int, half: int, dtype: str, norm: bool
) -> None:
    for job in jobs(16, dim, half, norm, dtype, architecture):
        compiled = build(job, architecture)
        assert resources(compiled).spilled == 0
        if dim % 16 == 0:
            assert "ld.global.v4.b32" in compiled.asm["ptx"]
            assert "st.global.v4.b32" in compiled.asm["ptx"]


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 4096, 1 << 20])
@pytest.mark.parametrize(("heads", "dim", "half"), [(16, 64, 32), (5, 100, 25), (1, 256, 128)])
def test_programs_cover_every_row_and_head(rows: int, heads: int, dim: int, half: int) -> None:
    work = cut(rows, heads, dim, half)
    assert 0 <= work.row_blocks * work.rows - rows < work.rows
    assert 0 <= work.head_blocks * work.share - heads < work.share
