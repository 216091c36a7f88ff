"""Named recurrences as layers: every way of calling one gives the same."""

from __future__ import annotations

import pytest
import torch
from recurrence_points import POINTS, UNIT
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels.recurrence import chunked, reference
from mixerlang.primitives import recurrence as r
from mixerlang.primitives.base import Workload

DIM = 24


@pytest.fixture(params=POINTS)
def term(request):
    return r.Recurrence(**POINTS[request.param])


@pytest.fixture
def layer(term, layer_of):
    torch.manual_seed(0)
    return layer_of(term, DIM).eval()


def close(a, b, tolerance=1e-4):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_forward_prefill_steps_and_packed_agree(layer, Caller):
    x = torch.randn(2, 70, DIM)
    full = Caller(layer)(x)

    prefill = Caller(layer)
    prefill.start(x)
    chunks = torch.cat([prefill(part) for part in x.split([2, 1, 65, 2], dim=1)], dim=1)
    close(chunks, full)

    steps = Caller(layer)
    steps.start(x)
    close(torch.cat([steps(part) for part in x.split(1, dim=1)], dim=1), full)
    for name, tensor in steps.cache.states[""].items():
        close(tensor, prefill.cache.states[""][name])

    packed = torch.cat([x[:1, :3], x[1:], x[:1, :1]], dim=1)
    parts = Caller(layer)(packed, cu_seqlens=[0, 3, 73, 74])
    close(parts, torch.cat([full[:1, :3], full[1:], full[:1, :1]], dim=1))


@torch.no_grad()
def test_rows_advance_by_different_counts(layer, Caller):
    x = torch.randn(3, 9, DIM)
    full = Caller(layer)(x)
    ragged = Caller(layer)
    ragged.start(x)
    first = torch.cat([x[:1, :1], x[1:2, :6], x[2:, :2]], dim=1)
    close(ragged(first, [0, 1, 7, 9]), torch.cat([full[:1, :1], full[1:2, :6], full[2:, :2]], 1))
    second = torch.cat([x[:1, 1:4], x[1:2, 6:7], x[2:, 2:9]], dim=1)
    close(
        ragged(second, [0, 3, 4, 11]),
        torch.cat([full[:1, 1:4], full[1:2, 6:7], full[2:, 2:9]], dim=1),
    )
    assert ragged.cache.seen.tolist() == [4, 7, 9]


@torch.no_grad()
def test_no_output_sees_later_tokens(layer, Caller):
    x = torch.randn(1, 70, DIM)
    y = Caller(layer)(x)
    x[:, 66:] = torch.randn(1, 4, DIM)
    changed = Caller(layer)(x)
    torch.testing.assert_close(changed[:, :66], y[:, :66], atol=1e-6, rtol=0)
    assert (changed[:, 66:] - y[:, 66:]).abs().amax() > 1e-3


def test_gradients_are_those_of_the_token_by_token_recurrence(layer, Caller, monkeypatch):
    layer = layer.double()
    x = torch.randn(1, 71, DIM, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters()]

    def gradients():
        y = Caller(layer)(x, cu_seqlens=[0, 66, 71])
        return torch.autograd.grad(y.square().sum(), wanted)

    ours = gradients()
    monkeypatch.setattr(chunked, "recurrence", reference.recurrence)
    for mine, theirs in zip(ours, gradients(), strict=True):
        assert mine.isfinite().all()
        assert mine.abs().amax() > 0
        torch.testing.assert_close(mine, theirs, atol=1e-8, rtol=1e-8)


def test_costs_are_those_of_the_term(term, layer, bound, Caller):
    term = bound(term, DIM)
    assert sum(p.numel() for p in layer.parameters()) == term.parameters(DIM)

    x = torch.randn(2, 70, DIM)
    state = layer.new_state(2, None, torch.bfloat16, x.device)
    held = sum(tensor.nbytes for tensor in state.values())
    assert held == term.cache_bytes(DIM, Workload(batch=2, length=70, bytes_per_element=2))

    def solve_flops(a_shape, b_shape, *_, **__):
        *batch, size, columns = b_shape
        return 2 * torch.Size(batch).numel() * size * size * columns

    solve = torch.ops.aten.linalg_solve_triangular
    with FlopCounterMode(display=False, custom_mapping={solve: solve_flops}) as counter:
        Caller(layer)(x)
    assert counter.get_total_flops() == term.forward_flops(DIM, Workload(batch=2, length=70))


@torch.no_grad()
def test_half_precision_keeps_a_float32_state(layer, Caller):
    x = torch.randn(2, 66, DIM)
    exact = Caller(layer)(x)
    layer = layer.bfloat16()
    caller = Caller(layer)
    caller.start(x.bfloat16())
    y = torch.cat([caller(part) for part in x.bfloat16().split([65, 1], dim=1)], dim=1)
    assert y.dtype == torch.bfloat16
    assert (y - exact).norm() < 0.1 * exact.norm()
    state = caller.cache.states[""]
    assert state["S"].dtype == torch.float32
    assert all(t.dtype == torch.bfloat16 for name, t in state.items() if name.endswith("_conv"))


@torch.no_grad()
def test_autocast_leaves_the_state_exact(Caller, layer_of, monkeypatch):
    torch.manual_seed(0)
    layer = layer_of(r.Recurrence(heads=2, features=UNIT, update=r.Delta()), DIM)
    x = torch.randn(1, 66, DIM)
    calls = []
    original = chunked.recurrence

    def recorded(*args, **kwargs):
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    monkeypatch.setattr(chunked, "recurrence", recorded)
    cached = Caller(layer)
    cached.start(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cached(x)
    args, kwargs = calls[0]
    assert args[2].dtype == torch.bfloat16
    _, state, _ = reference.recurrence(*args, **kwargs)
    close(cached.cache.states[""]["S"], state, 1e-5)
