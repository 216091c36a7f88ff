"""The convolution kernels without a GPU: in Triton's interpreter, and built ahead of time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Errors

from mixerlang.kernels.ahead import build, resources
from mixerlang.kernels.convolution.ahead import jobs
from mixerlang.kernels.convolution.cut import Part, cut

QKV = (Part(1024, True, 128), Part(1024, True, 128), Part(2048, True))


def test_agrees_with_float64(interpreted: Callable[[str], Errors]) -> None:
    errors = interpreted("interpret_convolution.py")
    assert len(errors) == 10
    wrong = {case: values for case, values in errors.items() if not all(e < 1e-6 for e in values)}
    assert not wrong


@pytest.mark.parametrize("architecture", ["sm_90", "sm_80"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("parts", "options"),
    [
        (QKV, {}),
        (QKV, {"packed": True, "cached": True, "bias": True}),
        ((Part(300, True, 100), Part(300)), {}),
        ((Part(1024),), {"bias": True}),
    ],
)
def test_fits_and_moves_vectors(
    architecture: str, dtype: str, parts: tuple[Part, ...], options: dict[str, bool]
) -> None:
    for job in jobs(parts, 4, dtype, **options):
        compiled = build(job, architecture)
        assert resources(compiled).spilled == 0
        wide = "v4" if dtype == "float32" else "v2"
        assert f"ld.global.{wide}.b32" in compiled.asm["ptx"]
        assert f"st.global.{wide}.b32" in compiled.asm["ptx"]


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 31), (3, 4096), (1, 1 << 20)])
@pytest.mark.parametrize("parts", [QKV, (Part(300, True, 100), Part(300)), (Part(7),)])
@pytest.mark.parametrize("kernel", [1, 4, 8])
def test_programs_cover_every_token_and_channel(
    batch: int, tokens: int, parts: tuple[Part, ...], kernel: int
) -> None:
    for halo in (0, kernel - 1):
        work = cut(parts, batch, tokens, kernel, halo)
        assert 0 <= work.run * work.runs - tokens < work.run
        own = work.block // (1 << (work.head_dim - 1).bit_length()) * work.head_dim
        for part, blocks in zip(parts, work.blocks, strict=False):
            assert 0 <= blocks * own - part.channels < own
