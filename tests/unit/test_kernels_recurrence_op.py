"""The recurrence op on the CPU: mathematics, packing, gradients, and what torch asks of an op."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mixerlang.kernels.recurrence import op, reference
from mixerlang.kernels.recurrence.variant import Variant, cut, unserved

EDGES = [0, 1, 1, 9, 20]


def problem(
    decay: str = "scalar",
    tokens: int = 20,
    batch: int = 1,
    sequences: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    """Two heads for four of v; keys of unit length keep the delta rule stable."""
    torch.manual_seed(tokens)
    by_token = batch, tokens

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    g = {
        "none": None,
        "scalar": -torch.rand(*by_token, 4, dtype=dtype),
        "vector": -torch.rand(*by_token, 2, 5, dtype=dtype),
    }[decay]
    return {
        "q": randn(*by_token, 2, 5),
        "k": normalize(randn(*by_token, 2, 5), dim=-1),
        "v": randn(*by_token, 4, 3),
        "g": g,
        "b": torch.rand(*by_token, 4, dtype=dtype),
        "state": randn(sequences or batch, 4, 5, 3),
        "z": None,
    }


def run(function: Callable[..., Any], tensors: dict[str, Any]) -> list[Tensor]:
    """Results and the gradients of a function of them all."""
    leaves = {n: x.clone().requires_grad_() for n, x in tensors.items() if x is not None}
    outputs = [x for x in function(**{**tensors, **leaves}) if x is not None]
    total = sum((x.square() * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in outputs)
    assert isinstance(total, Tensor)
    return outputs + list(torch.autograd.grad(total, list(leaves.values())))


@pytest.mark.parametrize("decay", ["none", "scalar", "vector"])
@pytest.mark.parametrize(
    ("delta", "normalized"), [(False, False), (False, True), (True, False)]
)  # a delta rule has no normalizer
def test_is_the_recurrence_token_by_token(decay: str, delta: bool, normalized: bool) -> None:
    tensors = problem(decay, batch=2)
    rule: dict[str, Any] = {"delta": delta, "normalize": normalized, "scale": 0.4}
    if normalized:  # positive, so that nothing divides by nearly zero
        tensors |= {name: tensors[name].abs() for name in "qk"}
        tensors["z"] = tensors["state"][..., 0].abs()
    found = run(lambda **x: op.recurrence(**x, **rule), tensors)
    expected = run(lambda **x: reference.recurrence(**x, **rule), tensors)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_packed_sequences_are_separate_ones() -> None:
    tensors = problem(sequences=4)
    edges = torch.tensor(EDGES, dtype=torch.int32)

    def apart(**x: Any) -> tuple[Tensor, Tensor]:
        parts = [
            op.recurrence(
                **{name: x[name][:, low:high] for name in "qkvgb"},
                state=x["state"][n : n + 1],
                delta=True,
            )
            for n, (low, high) in enumerate(pairwise(EDGES))
        ]
        return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts])

    found = run(lambda **x: op.recurrence(**x, delta=True, cu_seqlens=edges), tensors)
    for ours, theirs in zip(found, run(apart, tensors), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_compiles_whole() -> None:
    tensors = [x for x in problem(dtype=torch.float32).values() if x is not None]
    run = torch.compile(
        lambda *x: op.recurrence(*x, delta=True)[0], fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(run(*tensors), op.recurrence(*tensors, delta=True)[0])


def test_counts_flops() -> None:
    """As is usual for a chunked pass: the state thrice, and pairs in chunks."""
    shapes = (1, 20, 2, 5), (1, 20, 2, 5), (1, 20, 4, 3), None, None, None, None
    assert op._flops(*shapes, True, 1.0) == 2 * 20 * 4 * (3 * 15 + 64 * (3 * 5 + 2 * 3))
    assert op._flops(*shapes, False, 1.0) == 2 * 20 * 4 * (2 * 15 + 64 * (5 + 3))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"q": torch.randn(1, 20, 3, 5)}, "q and k are alike"),
        ({"v": torch.randn(1, 20, 3, 3)}, "2 heads of k do not divide 3 of v"),
        ({"b": torch.randn(1, 20, 2)}, r"b is \(N, T, value heads\)"),
        ({"g": torch.randn(1, 20, 2)}, "g is"),
        ({"state": torch.randn(2, 4, 5, 3)}, r"state is \(1, 4, 5, 3\)"),
        ({"cu_seqlens": torch.tensor([0, 9])}, "rise from 0 to 20"),
    ],
)
def test_refuses_what_does_not_fit(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        op.recurrence(**{**problem(dtype=torch.float32), **changed})


def test_no_tokens_leave_the_state_alone() -> None:
    tensors = problem(tokens=0)
    o, state, _ = op.recurrence(**tensors)
    assert o.shape == (1, 0, 4, 3)
    torch.testing.assert_close(state, tensors["state"])


def test_a_variant_says_what_it_cannot_serve() -> None:
    with pytest.raises(ValueError, match="key_dim is 300: the kernels serve 1 to 256, nearest 256"):
        Variant(1, 1, 300, 64, 1.0)
    with pytest.raises(ValueError, match="2 heads do not divide 3"):
        Variant(2, 3, 64, 64, 1.0)


def test_what_the_kernels_do_not_serve_has_a_reason() -> None:
    assert unserved(256, 256) is None
    assert "up to 256" in (unserved(64, 256, normalize=True) or "")
    assert "a decay for each channel" in (unserved(64, 64, decay="vector") or "")


@pytest.mark.parametrize("dim", [1, 16, 20, 64, 100, 128, 200, 256])
def test_pieces_hold_every_channel_once(dim: int) -> None:
    pieces = cut(dim, 64)
    held = [c for piece in pieces for c in range(piece.start, piece.start + piece.used)]
    assert held == list(range(dim))
    assert all(piece.used <= piece.width <= 64 for piece in pieces)
