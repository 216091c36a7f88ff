"""The gated norm: its kernels in Triton's interpreter and built ahead of time, and the op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gated_norm_cases import CASES, Case, errors, tensors
from torch import Tensor

from mixerlang.kernels.ahead import build, resources
from mixerlang.kernels.norm import gated_op as op
from mixerlang.kernels.norm.gated_ahead import jobs

Errors = dict[str, list[float]]


def test_kernels_agree_with_float64(interpreted: Callable[[str], Errors]) -> None:
    found = interpreted("interpret_gated_norm.py")
    assert len(found) == 7
    wrong = {case: values for case, values in found.items() if not all(e < 1e-6 for e in values)}
    assert not wrong


@pytest.mark.parametrize("architecture", ["sm_90", "sm_80"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("dim", "gate"), [(128, True), (128, False), (100, True), (256, True)])
def test_fits_and_moves_whole_vectors(architecture: str, dim: int, gate: bool, dtype: str) -> None:
    for job in jobs(16, dim, gate, dtype):
        compiled = build(job, architecture)
        assert resources(compiled).spilled == 0
        if dim % 16 == 0:
            loads = ("ld.global.v4.b32", "cp.async.cg.shared.global")  # 16 bytes either way
            assert any(load in compiled.asm["ptx"] for load in loads)
            assert "st.global.v4.b32" in compiled.asm["ptx"]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_agrees_with_float64(case: Case) -> None:
    assert all(error < 1e-6 for error in errors(case, op.gated_norm))


@pytest.mark.parametrize("name", ["one token", "sigmoid", "no gate"])
def test_gradients(name: str) -> None:
    case = CASES[name]
    given = [each for each in tensors(case, dtype=torch.float64) if each is not None]
    leaves = [each.double()[..., : case.dim].detach().requires_grad_() for each in given]

    def run(*leaves: Tensor) -> Tensor:
        return op.gated_norm(*leaves, activation=case.activation, eps=1e-3)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("name", ["rows", "no gate"])
def test_is_an_op_to_torch(name: str) -> None:
    x, weight, gate = tensors(CASES[name])
    for leaf in (x, weight, gate):
        if leaf is not None:
            leaf.requires_grad_()
    torch.library.opcheck(op._gated_norm, (x, gate, weight, True, 1e-6))


def test_compiles_without_a_break() -> None:
    x, weight, gate = tensors(CASES["rows"])
    x.requires_grad_()

    def run(x: Tensor) -> Tensor:
        return op.gated_norm(x * 2, weight, gate).sin()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(x).sum(), x)
    (wanted,) = torch.autograd.grad(run(x).sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 4)}, "x is"),
        ({"x": torch.zeros(1, 1, 1, 5000)}, "serve 1 to 4096"),
        ({"weight": torch.zeros(7)}, r"weight is \(16,\)"),
        ({"weight": torch.zeros(32)[::2]}, "side by side"),
        ({"gate": torch.zeros(2, 21, 48)}, "gate is"),
        ({"activation": "relu"}, "silu or sigmoid"),
        ({"weight": torch.zeros(16, device="meta")}, "one device, cpu"),
    ],
)
def test_refuses_what_it_would_read_beyond(change: dict[str, Any], message: str) -> None:
    x, weight, gate = tensors(CASES["rows"])
    with pytest.raises(ValueError, match=message):
        op.gated_norm(**{"x": x, "weight": weight, "gate": gate} | change)
