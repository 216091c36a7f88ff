"""Recurrence layers through the kernels' ops (their dense forms), against plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recurrence_points import POINTS
from torch import Tensor

from mixerlang.codegen import recurrences
from mixerlang.nn import backend, fused_recurrence
from mixerlang.nn.recurrence import Recurrence as Layer
from mixerlang.primitives import recurrence as r

DIM = 24
PLAIN = {"taylor of hedgehog"}
"""What no kernel serves: its features come after a convolution."""
SERVED = [name for name in POINTS if name not in PLAIN]


@pytest.fixture(params=SERVED)
def layer(request: pytest.FixtureRequest, layer_of: Callable[..., Layer]) -> Layer:
    torch.manual_seed(0)
    made = layer_of(r.Recurrence(**POINTS[request.param]), DIM).double().eval()
    for parameter in made.parameters():  # gates and decays that differ from token to token
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.fixture(autouse=True)
def fill() -> None:
    torch.manual_seed(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, DIM, dtype=torch.float64)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("lengths", [None, [0, 3, 4, 70]], ids=["rows", "packed"])
def test_same_outputs_and_gradients(layer: Layer, Caller: Any, lengths: list[int] | None) -> None:
    x, up = noise(2, 70), noise(2, 70)
    if lengths is not None:
        x, up = x[:1], up[:1]
    results = []
    for way in ("eager", "kernels"):
        leaf = x.clone().requires_grad_()
        with backend.forced(way):
            y = Caller(layer)(leaf, lengths)
        wanted = [leaf, *layer.parameters()]
        results.append([y, *torch.autograd.grad(y, wanted, up)])
    for mine, theirs in zip(*reversed(results), strict=True):
        close(mine, theirs)


@torch.no_grad()
def test_chunks_steps_and_ragged_prefills(layer: Layer, Caller: Any) -> None:
    x = noise(2, 40)
    full = Caller(layer)(x)
    with backend.forced("kernels"):
        for sizes in ([2, 1, 13, 8, 1, 15], [1] * 40, [8] * 5, [20, 1, 1, 18]):
            caller = Caller(layer)
            caller.start(x)
            assert fused_recurrence.holds(caller.cache.states[""])
            close(torch.cat([caller(part) for part in x.split(sizes, dim=1)], dim=1), full)
        caller = Caller(layer)
        caller.start(x)
        packed = torch.cat([x[:1, :3], x[1:, :20]], dim=1)
        close(caller(packed, [0, 3, 23]), torch.cat([full[:1, :3], full[1:, :20]], dim=1))
        both = torch.stack([x[0, 3:7], x[1, 20:24]])
        for part, start in zip(both.split([1, 3], dim=1), (0, 1), strict=True):
            end = start + part.shape[1]
            wanted = torch.stack([full[0, 3 + start : 3 + end], full[1, 20 + start : 20 + end]])
            close(caller(part), wanted)
        packed = torch.cat([x[:1, 7:9], x[1:, 24:40]], dim=1)
        close(caller(packed, [0, 2, 18]), torch.cat([full[:1, 7:9], full[1:, 24:40]], dim=1))


@torch.no_grad()
def test_tokens_of_a_step_are_taken_back(layer: Layer, Caller: Any) -> None:
    x, other = noise(2, 30), noise(2, 8)
    full = Caller(layer)(x)
    with backend.forced("kernels"):
        caller = Caller(layer)
        caller.start(x)
        caller(x[:, :9])
        close(caller(torch.cat([x[:, 9:12], other[:, :5]], dim=1))[:, :3], full[:, 9:12])
        caller.cache.rollback(5)
        close(caller(torch.cat([x[:, 12:13], other[:, 5:]], dim=1))[:, :1], full[:, 12:13])
        caller.cache.rollback(3)
        caller(other[:, :2])
        caller.cache.rollback(2)
        close(caller(x[:, 13:14]), full[:, 13:14])
        with pytest.raises(ValueError, match="cannot forget"):
            caller.cache.rollback(1)
        close(caller(x[:, 14:18]), full[:, 14:18])
        close(caller(x[:, 18:]), full[:, 18:])


@pytest.mark.parametrize("name", SERVED)
def test_the_compiler_plans_the_same_step(
    name: str, layer_of: Callable[..., Layer], bound: Callable[..., r.Recurrence]
) -> None:
    term = bound(r.Recurrence(**POINTS[name]), DIM)
    assert recurrences.step_rule(term) == layer_of(term, DIM).plan.rule


@torch.no_grad()
def test_new_weights_are_seen(Caller: Any, layer_of: Callable[..., Layer]) -> None:
    layer = layer_of(r.Recurrence(**POINTS["gated deltanet"]), DIM).double()
    x = noise(1, 4)
    with backend.forced("kernels"):
        caller = Caller(layer)
        caller.start(x)
        caller(x[:, :1])
        layer.q_conv.weight.mul_(2)
        layer.o_norm.weight.mul_(3)
        again = Caller(layer)
        again.start(x)
        found = torch.cat([again(part) for part in x.split(1, dim=1)], dim=1)
    close(found, Caller(layer)(x))


def test_a_cached_call_is_differentiated(Caller: Any, layer_of: Callable[..., Layer]) -> None:
    layer = layer_of(r.Recurrence(**POINTS["gated deltanet"]), DIM).double()
    x = noise(1, 12).requires_grad_()
    grads = []
    for way in ("eager", "kernels"):
        with backend.forced(way):
            caller = Caller(layer)
            caller.start(x)
            with torch.no_grad():
                caller(x[:, :9])
            grads.append(torch.autograd.grad(caller(x[:, 9:]).square().sum(), x)[0])
    close(*reversed(grads))


@pytest.mark.parametrize("name", ["deltanet", "gated deltanet", "mamba2", "retnet", "linear"])
@torch.no_grad()
def test_half_precision(name: str, Caller: Any, layer_of: Callable[..., Layer]) -> None:
    layer = layer_of(r.Recurrence(**POINTS[name]), DIM)
    x = noise(2, 66).float()
    exact = Caller(layer)(x)
    layer = layer.bfloat16()
    with backend.forced("kernels"):
        caller = Caller(layer)
        caller.start(x.bfloat16())
        y = torch.cat([caller(part) for part in x.bfloat16().split([63, 1, 2], dim=1)], dim=1)
    assert y.dtype == torch.bfloat16
    assert (y - exact).norm() < 0.1 * exact.norm()
    state = caller.cache.states[""]
    assert state["S"].dtype == torch.float32 and state["v"].dtype == torch.bfloat16


@torch.no_grad()
def test_what_no_kernel_serves_goes_in_plain_pytorch(
    Caller: Any, layer_of: Callable[..., Layer], caplog: pytest.LogCaptureFixture
) -> None:
    layer = layer_of(r.Recurrence(**POINTS["taylor of hedgehog"]), DIM).double()
    x = noise(1, 5)
    full = Caller(layer)(x)
    backend._say.cache_clear()
    with backend.forced("kernels"):
        close(Caller(layer)(x), full)
        caller = Caller(layer)
        caller.start(x)
        close(torch.cat([caller(part) for part in x.split(1, dim=1)], dim=1), full)
    assert "after a convolution" in caplog.text


@pytest.mark.parametrize("name", ["gated deltanet", "gla"])
def test_compiles_without_a_break(
    name: str, Caller: Any, layer_of: Callable[..., Layer]
) -> None:
    layer = layer_of(r.Recurrence(**POINTS[name]), DIM).double()
    x = noise(2, 20).requires_grad_()
    with backend.forced("kernels"):
        torch._dynamo.reset()
        compiled = torch.compile(Caller(layer), fullgraph=True, backend="aot_eager")
        results = [
            torch.autograd.grad(call(x).square().sum(), [x, *layer.parameters()])
            for call in (compiled, Caller(layer))
        ]
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)
