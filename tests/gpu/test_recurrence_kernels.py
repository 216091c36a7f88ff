"""The recurrence kernels on a GPU: every decay and update, lengths, packing, stretches, tiles.

Against the recurrence token by token in float64. Outputs start as NaN, so that an element that no
program writes is seen; every result comes twice, bit for bit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.recurrence import op, plan

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from recurrence_cases import Case, make, oracle, relative

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("poisoned"),
    # Of the oracle: its sums in float64 may come in any order, its products begin a context.
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

HALF = (torch.bfloat16, torch.float16)
GDN = Case(1, 200, (2, 2, 128, 128), strength=0.1)
KDA = GDN._replace(decay="vector")
POINTS = {
    "gated delta rule": GDN,
    "delta rule": GDN._replace(decay="none"),
    "delta rule, no step": GDN._replace(step=False),
    "decay per channel, delta rule": KDA,
    "decay per channel, added": KDA._replace(delta=False, step=False),
    "decay per channel, added by steps": KDA._replace(delta=False),
    "added": GDN._replace(decay="none", delta=False, step=False),
    "added, decay": GDN._replace(delta=False, step=False),
    "added by steps, decay": GDN._replace(delta=False),
}


def limits(dtype: torch.dtype) -> tuple[float, float]:
    """Of relative errors: of o and the last state, and of gradients."""
    return (1e-4, 1e-4) if dtype == torch.float32 else (5e-3, 1e-2)


def run(case: Case, tensors: Any, given: list[Tensor], stretches: int | None) -> list[Tensor]:
    """o, the last state and all gradients."""
    leaves: Any = [None if x is None else x.detach().requires_grad_() for x in tensors]
    edges = None if case.edges is None else torch.tensor(case.edges, device="cuda")
    planned = plan.stretch_count if stretches is None else lambda *_: stretches
    with (
        mock.patch.object(plan, "stretch_count", planned),
        mock.patch.object(op, "served", lambda *_: True),  # also what layers do not call yet
    ):
        o, last, _ = op.recurrence(*leaves, delta=case.delta, scale=case.scale, cu_seqlens=edges)
        wanted = [x for x in leaves if x is not None]
        return [o, last, *torch.autograd.grad([o, last], wanted, given)]


def compare(
    case: Case, dtype: torch.dtype = torch.bfloat16, stretches: int | None = None, seed: int = 0
) -> None:
    tensors = make(case, dtype, "cuda", seed)
    expected = oracle(tensors, case)
    given = [expected.do.to(dtype), expected.dlast.float()]
    found = run(case, tensors, given, stretches)
    errors = [
        relative(a, b)
        for a, b in zip(found, [expected.o, expected.last, *expected.found], strict=True)
    ]
    forward, backward = limits(dtype)
    assert max(errors[:2]) < forward, errors
    assert max(errors[2:]) < backward, errors
    again = run(case, tensors, given, stretches)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("dtype", [*HALF, torch.float32], ids=str)
@pytest.mark.parametrize("name", POINTS)
def test_points(name: str, dtype: torch.dtype) -> None:
    compare(POINTS[name], dtype)


@pytest.mark.parametrize("tokens", [1, 2, 63, 64, 65, 129, 300])
@pytest.mark.parametrize("case", [GDN, KDA], ids=["scalar", "vector"])
def test_lengths(case: Case, tokens: int) -> None:
    compare(case._replace(tokens=tokens, batch=2, sizes=(1, 1, 64, 64)))


NARROW = [(16, 16), (64, 128), (80, 200)]
WIDE = [(100, 36), (192, 96), (256, 256), (200, 64)]


@pytest.mark.parametrize(
    ("case", "dims"), [*((GDN, dims) for dims in NARROW + WIDE), *((KDA, dims) for dims in NARROW)]
)
def test_head_dims(case: Case, dims: tuple[int, int]) -> None:
    # Few channels make keys alike, which costs digits where b is near 2.
    compare(case._replace(sizes=(1, 1, *dims), step=min(dims) > 16))


@pytest.mark.parametrize("name", POINTS)
def test_grouped_heads_and_packed_sequences(name: str) -> None:
    case = POINTS[name]._replace(sizes=(2, 4, 64, 64))
    compare(case)
    compare(case._replace(edges=[0, 1, 1, 64, 130, 200]))


@pytest.mark.parametrize("name", POINTS)
def test_stretches(name: str) -> None:
    compare(POINTS[name]._replace(tokens=500, batch=2), stretches=3)


@pytest.mark.parametrize("strength", [1e-4, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("case", [GDN, KDA], ids=["scalar", "vector"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_decays_strong_beside_weak(case: Case, strength: float, dtype: torch.dtype) -> None:
    """To sums of the log-decay beyond -1,000 in a chunk."""
    compare(case._replace(strength=strength, mode="mixed"), dtype)


@pytest.mark.parametrize("case", [GDN, KDA], ids=["scalar", "vector"])
def test_keys_alike_with_b_near_two(case: Case) -> None:
    """What float32 holds; 16 bits lose here what products of them lose."""
    compare(case._replace(mode="repeated"), torch.float32)


def test_a_long_sequence_is_its_parts() -> None:
    """131,072 tokens in stretches, against two calls that hand over the state."""
    case = Case(1, 131_072, (2, 2, 64, 64), strength=0.01)
    *by_token, _ = make(case, torch.bfloat16, "cuda")

    def call(rows: slice, state: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs: Any = [x[:, rows] for x in by_token if x is not None]
        return op.recurrence(*inputs, state, delta=True, scale=case.scale)[:2]

    whole, last = call(slice(None), None)
    first, state = call(slice(0, 70_001), None)
    second, state = call(slice(70_001, None), state)
    parts = [first, second]
    assert relative(whole, torch.cat(parts, 1)) < 5e-3
    assert relative(last, state) < 5e-3


def test_slices_of_one_buffer_are_read_in_place() -> None:
    case = GDN._replace(sizes=(2, 2, 64, 64))
    q, k, v, *rest = make(case, torch.bfloat16, "cuda")
    joined = torch.cat([x.flatten(2) for x in (q, k, v)], -1)
    apart = [torch.unflatten(x, -1, (2, 64)) for x in joined.chunk(3, -1)]
    for ours, theirs in zip(
        op.recurrence(*apart, *rest, delta=True)[:2],
        op.recurrence(q, k, v, *rest, delta=True)[:2],
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_normalized() -> None:
    case = GDN._replace(delta=False, step=False, sizes=(2, 2, 64, 64))
    q, k, v, g, _, state = make(case, torch.bfloat16, "cuda")
    assert g is not None and state is not None
    tensors = [q.abs(), k.abs(), v, g, None, state, state[..., 0].abs()]
    o, last, z = op.recurrence(*tensors, normalize=True, scale=0.1)  # type: ignore[arg-type]
    from mixerlang.kernels.recurrence import reference

    wide: Any = [None if x is None else x.double() for x in tensors]
    expected = reference.recurrence(*wide, normalize=True, scale=0.1)
    for ours, theirs in zip((o, last, z), expected, strict=True):
        assert ours is not None and theirs is not None
        assert relative(ours, theirs) < 5e-3
