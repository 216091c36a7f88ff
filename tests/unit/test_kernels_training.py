"""SwiGLU and cross-entropy: mathematics, gradients, what torch asks of an op, and their kernels in
Triton's interpreter and built ahead of time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels import ahead
from mixerlang.kernels.entropy import ahead as entropy_ahead
from mixerlang.kernels.entropy import op as entropy_op
from mixerlang.kernels.swiglu import ahead as swiglu_ahead
from mixerlang.kernels.swiglu import op as swiglu_op
from mixerlang.nn import backend
from mixerlang.nn.ffn import SwiGLU
from mixerlang.nn.loss import cross_entropy

TARGETS = torch.tensor([0, 3, 10, -100, 5, 2])


def pair(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    gate, up = (torch.randn(3, 5, 7).to(dtype).requires_grad_() for _ in range(2))
    return gate, up


def logits(dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(6, 11)).to(dtype).requires_grad_()


def test_kernels_agree_with_plain_pytorch(interpreted: Callable[[str], dict[str, list[float]]]):
    errors = interpreted("interpret_training.py")
    assert len(errors) == 15
    wrong = {case: values for case, values in errors.items() if not all(e < 1e-6 for e in values)}
    assert not wrong


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_kernels_move_whole_vectors_and_spill_nothing(architecture: str, dtype: str) -> None:
    for job in [*swiglu_ahead.jobs(dtype), *entropy_ahead.jobs(32_000, dtype)]:
        compiled = ahead.build(job, architecture)
        assert ahead.resources(compiled).spilled == 0, job
        assert "ld.global.v4.b32" in compiled.asm["ptx"], job


# ----------------------------------------------------------------------------------------- swiglu


def test_swiglu_gradients() -> None:
    assert torch.autograd.gradcheck(swiglu_op.swiglu, pair(torch.float64))


def test_swiglu_rounds_once() -> None:
    gate, up = pair(torch.bfloat16)
    exact = F.silu(gate.double()) * up.double()
    assert torch.equal(swiglu_op.swiglu(gate, up), exact.to(torch.bfloat16))


def test_swiglu_keeps_its_two_inputs_alone() -> None:
    kept: list[Tensor] = []
    gate, up = pair(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        swiglu_op.swiglu(gate, up)
    assert [x.data_ptr() for x in kept] == [gate.data_ptr(), up.data_ptr()]


def test_a_layer_in_training_keeps_less_through_the_op() -> None:
    layer, x = SwiGLU(6, hidden=9).double(), torch.randn(2, 3, 6, dtype=torch.float64)
    kept: dict[str, set[int]] = {way: set() for way in backend.CHOICES}
    results = []
    for way in backend.CHOICES:

        def pack(saved: Tensor, way: str = way) -> Tensor:
            if saved.shape[-1] == 9:
                kept[way].add(saved.data_ptr())
            return saved.detach()

        with backend.forced(way), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            y = layer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
    for eager, kernels in zip(*results, strict=True):
        torch.testing.assert_close(eager, kernels)
    assert len(kept["eager"]) == len(kept["kernels"]) + 1  # silu(gate)


def test_swiglu_refuses_unequal_shapes() -> None:
    with pytest.raises(ValueError, match="one shape, dtype and device"):
        swiglu_op.swiglu(torch.zeros(2, 3), torch.zeros(2, 4))


# ---------------------------------------------------------------------------------- cross-entropy


def test_entropy_gradients() -> None:
    found = logits(torch.float64)
    assert torch.autograd.gradcheck(lambda x: entropy_op.entropy(x, TARGETS), found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_entropy_is_torchs_own(dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    mine, theirs = logits(dtype), logits(dtype)
    losses = entropy_op.entropy(mine, TARGETS)
    expected = F.cross_entropy(theirs.to(wide), TARGETS, reduction="none")
    torch.testing.assert_close(losses, expected)
    weights = torch.arange(1.0, 7.0, dtype=wide)
    for found in (losses, expected):
        (found * weights).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    assert not mine.grad[3].any()


@pytest.mark.parametrize("way", backend.CHOICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_mean_leaves_out_what_does_not_count(way: str, dtype: torch.dtype) -> None:
    found = logits(dtype)
    with backend.forced(way):
        loss = cross_entropy(found.view(2, 3, 11), TARGETS.view(2, 3))
    wide = torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss, F.cross_entropy(found.to(wide), TARGETS))
    assert loss.dtype == wide


def test_plain_pytorch_gives_the_same_digits_as_before() -> None:
    found = logits(torch.bfloat16)
    with backend.forced("eager"):
        assert torch.equal(cross_entropy(found, TARGETS), F.cross_entropy(found.float(), TARGETS))


@pytest.mark.parametrize(
    ("x", "targets", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64), r"logits are \(M, V\)"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), r"targets \(M,\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "not empty"),
        (torch.zeros(2, 3), torch.zeros(2), "targets int64"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64, device="meta"), "targets on meta"),
    ],
)
def test_entropy_refuses(x: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entropy_op.entropy(x, targets)


# ------------------------------------------------------------------------------------------- both


def test_are_ops_to_torch() -> None:
    torch.library.opcheck(swiglu_op._swiglu, pair(torch.float32))
    torch.library.opcheck(entropy_op._entropy, (logits(torch.float32), TARGETS, -100))


def test_compile_without_a_break() -> None:
    gate, up = pair(torch.float32)
    found = logits(torch.float32)

    def run(gate: Tensor, found: Tensor) -> Tensor:
        return swiglu_op.swiglu(gate, up).sum() + entropy_op.entropy(found, TARGETS).sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(run(gate, found), (gate, found))
    torch.testing.assert_close(torch.autograd.grad(compiled(gate, found), (gate, found)), expected)
