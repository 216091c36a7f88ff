"""The convolution op on the CPU: mathematics, gradients, and what torch asks of an op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from convolution_cases import CASES, Case, errors, expected, tensors
from torch import Tensor

from mixerlang.kernels.convolution import op
from mixerlang.kernels.convolution.op import Part


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_agrees_with_float64(case: Case) -> None:
    assert all(error < 1e-6 for error in errors(case, op.convolve))


@pytest.mark.parametrize("name", ["fewer tokens than taps", "odd channels", "one tap"])
def test_gradients(name: str) -> None:
    given = tensors(CASES[name], dtype=torch.float64)
    leaves = [given["x"][:1].requires_grad_(), given["weight"].double().requires_grad_()]
    initial = given["initial"][:1] if "initial" in given else None

    def run(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(op.convolve(x, weight, given["parts"], initial=initial)[0])

    assert torch.autograd.gradcheck(run, leaves)


def test_rounds_once() -> None:
    """bfloat16 in and out, float32 between: off by half a unit in the last place at most."""
    given = tensors(CASES["rows"], dtype=torch.bfloat16)
    found, _ = op.convolve(**given)
    for y, wanted in zip(found, expected(**given), strict=False):
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y, wanted.bfloat16(), rtol=2**-8, atol=1e-6)


def test_a_tail_continues() -> None:
    """Two calls, the second with the tail of the first, give what one call gives."""
    given = tensors(CASES["rows"])
    whole, tail = op.convolve(**given, keep_tail=True)
    x = given.pop("x")
    first, between = op.convolve(x[:, :2], **given, keep_tail=True)
    second, last = op.convolve(x[:, 2:], **given, initial=between, keep_tail=True)
    for pieces in zip(whole, first, second, strict=True):
        torch.testing.assert_close(torch.cat(pieces[1:], dim=1), pieces[0])
    assert tail is not None
    torch.testing.assert_close(last, tail)


@pytest.mark.parametrize("name", ["one token", "packed, cached", "odd channels"])
def test_is_an_op_to_torch(name: str) -> None:
    given = tensors(CASES[name])
    parts = given["parts"]
    order = ("x", "weight", "bias", "initial", "cu_seqlens")
    leaves: list[Any] = [given.get(each) for each in order]
    for leaf in leaves[:3]:
        if leaf is not None:
            leaf.requires_grad_()
    rule = [[p.channels for p in parts], [int(p.silu) for p in parts], [p.head_dim for p in parts]]
    for keep in (True, False):
        torch.library.opcheck(op._convolve, (*leaves, *rule, keep))


def test_compiles_without_a_break() -> None:
    given = tensors(CASES["packed"])
    x = given.pop("x").requires_grad_()

    def run(x: Tensor) -> Tensor:
        return torch.cat(op.convolve(x * 2, **given)[0], dim=-1).sin()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(x).sum(), x)
    (wanted,) = torch.autograd.grad(run(x).sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 112)}, "x is"),
        ({"weight": torch.zeros(111, 4)}, r"weight is \(112, kernel\)"),
        ({"weight": torch.zeros(112, 9)}, "1 to 8 are served"),
        ({"parts": (Part(111),)}, "112 channels together"),
        ({"parts": (Part(28),) * 4}, "1 to 3 parts"),
        ({"parts": (Part(56, True, 8), Part(56, True, 7))}, "heads of one size"),
        ({"parts": (Part(112, True, 32),)}, "do not divide"),
        ({"bias": torch.zeros(3)}, "bias is"),
        ({"initial": torch.zeros(1, 3, 112)}, "initial is"),
        ({"initial": torch.zeros(2, 3, 112, requires_grad=True)}, "no gradient"),
        ({"cu_seqlens": torch.tensor([0, 37])}, "goes with x of shape"),
    ],
)
def test_refuses_what_it_would_read_beyond(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        op.convolve(**tensors(CASES["rows"]) | change)
