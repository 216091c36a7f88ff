"""The norm of a step's rows without a GPU: interpreted, built ahead, as an op and a layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mixerlang.kernels.ahead import build, resources
from mixerlang.kernels.norm import rms_op
from mixerlang.kernels.norm.rms_ahead import jobs
from mixerlang.nn.backend import forced
from mixerlang.nn.norm import RMSNorm


def test_agrees_with_float64(interpreted: Callable[[str], dict[str, list[float]]]) -> None:
    errors = interpreted("interpret_rms.py")
    assert len(errors) == 3
    assert not {case: e for case, e in errors.items() if not all(x < 1e-6 for x in e)}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dim", [64, 1024, 5120, rms_op.MAX_DIM])
def test_fits_and_reads_whole_vectors(dim: int, architecture: str) -> None:
    for job in jobs(dim, "bfloat16", architecture):
        compiled = build(job, architecture)
        assert resources(compiled).spilled == 0
        if dim >= 1024:
            assert "ld.global.v4.b32" in compiled.asm["ptx"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_layer_gives_the_same_through_the_op(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, norm = torch.randn(2, 1, 12, dtype=dtype), RMSNorm(12, eps=1e-3).to(dtype)
    torch.nn.init.normal_(norm.weight)
    with torch.no_grad():
        wanted = norm(x)
        with forced("kernels"):
            torch.testing.assert_close(norm(x), wanted, rtol=1e-6, atol=1e-6)
    torch.library.opcheck(rms_op._rms, (x[:, 0], norm.weight.detach(), 1e-3))


def test_refuses_what_it_would_misread() -> None:
    x = torch.randn(2, 12)
    for tensors in ((x, torch.ones(11)), (x, torch.ones(24)[::2]), (x[:0], torch.ones(12))):
        with pytest.raises(ValueError, match="is"):
            rms_op.rms(*tensors, 1e-6)
    with pytest.raises(ValueError, match="its weight on meta"):
        rms_op.rms(x, torch.ones(12, device="meta"), 1e-6)
