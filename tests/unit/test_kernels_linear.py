"""Products of few rows without a GPU: in the interpreter, built ahead, as ops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels.ahead import build, resources
from mixerlang.kernels.linear import op
from mixerlang.kernels.linear.ahead import jobs
from mixerlang.kernels.linear.cut import PROGRAMS, TILE, cut


def test_agree_with_float64(interpreted: Callable[[str], dict[str, list[float]]]) -> None:
    errors = interpreted("interpret_linear.py")
    assert len(errors) == 5
    assert not {case: e for case, e in errors.items() if not all(x < 1e-6 for x in e)}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "dtype", "options"),
    [
        (1024, (1024, 1024, 1024), "bfloat16", {}),
        (1024, (2816,), "bfloat16", {"gated": True}),
        (2816, (1024,), "bfloat16", {"residual": True}),
        (1024, (32_000,), "bfloat16", {"rows": 4}),
        (4096, (4096, 1024, 1024), "bfloat16", {"rows": 4, "bias": True}),
        (11_008, (4096,), "bfloat16", {"rows": 2}),
        (1024, (2816,), "float32", {"gated": True, "rows": 4}),
    ],
    ids=str,
)
def test_fits_and_reads_whole_vectors(
    inputs: int, outputs: tuple[int, ...], dtype: str, options: dict[str, int], architecture: str
) -> None:
    for job in jobs(inputs, outputs, dtype, architecture, **options):  # type: ignore[arg-type]
        compiled = build(job, architecture)
        assert resources(compiled).spilled == 0
        ptx = compiled.asm["ptx"]
        assert "ld.global.v4.b32" in ptx
        if architecture == "sm_90":  # weights are under way before the wait
            assert "ld.global.v4.b32" in ptx[: ptx.index("griddepcontrol.wait")]


@pytest.mark.parametrize("outputs", [1, 2, 1000, 3072, 32_000])
@pytest.mark.parametrize("inputs", [1, 100, 1024, 2816, 20_000])
def test_programs_are_many_and_small(outputs: int, inputs: int) -> None:
    work = cut(outputs, inputs, 2)
    assert work.outputs == 1 or work.outputs * work.inputs * 2 <= TILE
    assert work.outputs == 1 or -(-outputs // work.outputs) >= PROGRAMS


def tensors(*outputs: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 20, dtype=torch.float64)
    weights = [torch.randn(width, 20, dtype=torch.float64) for width in outputs]
    return x, weights, [torch.randn(width, dtype=torch.float64) for width in outputs]


def test_outputs_stand_side_by_side() -> None:
    x, weights, biases = tensors(5, 1, 7)
    expected = [x @ w.T + b for w, b in zip(weights, biases, strict=True)]
    torch.testing.assert_close(op.linear(x, weights, biases), torch.cat(expected, -1))
    residual = torch.randn(2, 3, 13, dtype=torch.float64)
    found = op.linear(x, weights, biases, residual)
    torch.testing.assert_close(found, torch.cat(expected, -1) + residual)
    gate, up = weights[0], weights[0].flip(0)
    products = x @ gate.T, x @ up.T
    expected_gated = products[0] * products[0].sigmoid() * products[1]
    torch.testing.assert_close(op.gated(x, gate, up), expected_gated)


def test_ops_are_as_torch_wants_them() -> None:
    x, weights, biases = tensors(5, 7)
    torch.library.opcheck(op._linear, (x[0], weights, biases, None))
    torch.library.opcheck(op._linear, (x[0], weights, [], x.new_zeros(3, 12)))
    torch.library.opcheck(op._gated, (x[0], weights[0], weights[0]))


def test_flops_are_those_of_the_products() -> None:
    x, weights, _ = tensors(5, 7)
    with FlopCounterMode(display=False) as counter:
        op.linear(x, weights)
        op.gated(x, weights[0], weights[0])
    assert counter.get_total_flops() == 2 * 6 * 20 * (5 + 7) + 4 * 6 * 20 * 5


def test_refuses_what_it_would_misread() -> None:
    x, weights, biases = tensors(5, 7)
    cases: tuple[tuple[Callable[[], Tensor], str], ...] = (
        (lambda: op.linear(x, []), "1 to 3"),
        (lambda: op.linear(x, [weights[0][:, :9]]), "OUT, 20"),
        (lambda: op.linear(x, weights, biases[:1]), "a bias for each"),
        (lambda: op.linear(x, weights, residual=x), "residual"),
        (lambda: op.linear(x, weights, residual=x.new_empty(6, 12, device="meta")), "on meta"),
        (lambda: op.linear(x[:0], weights), "not empty"),
        (lambda: op.linear(x.float(), weights), "float32"),
        (lambda: op.gated(x, *weights), "of one shape"),
    )
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
