"""Recurrence layers through kernels on a GPU: training, prefills, steps and graphs of them, against
the same layers in plain PyTorch and float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixerlang.nn import backend, fused_recurrence
from mixerlang.nn import decay as d
from mixerlang.nn import features as f
from mixerlang.nn.mixer import Cache, Context
from mixerlang.nn.position import Rope
from mixerlang.nn.recurrence import GatedRMSNorm, PlainOutput, Recurrence
from mixerlang.nn.sequences import Sequences

pytestmark = [
    pytest.mark.gpu,
    # torch's own, where the first product of autograd's thread is one of matrices
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

DIM = 192
UNIT = f.Compose((f.Silu(), f.L2Norm()))
DELTA: dict[str, Any] = {"features": UNIT, "values": f.Silu(), "update": d.Delta(), "conv": 4}
POINTS: dict[str, dict[str, Any]] = {
    "gated deltanet": {**DELTA, "decay": d.Scalar(), "output": GatedRMSNorm(), "heads": 2,
                       "value_heads": 4, "key_dim": 64, "value_dim": 64},
    "deltanet": {**DELTA, "heads": 3, "value_heads": 3, "key_dim": 100, "value_dim": 100},
    "kda": {**DELTA, "decay": d.Vector("softplus", rank=16), "heads": 2, "value_heads": 2,
            "output": GatedRMSNorm("sigmoid", rank=16), "key_dim": 64, "value_dim": 64},
    "gla": {"decay": d.Vector(rank=16, temperature=16.0), "output": GatedRMSNorm(), "heads": 2,
            "value_heads": 2, "key_dim": 32, "value_dim": 96},
    "hgrn2": {"features": f.Silu(), "decay": d.Vector(), "keys": "complement", "heads": 3,
              "value_heads": 3, "key_dim": 64, "value_dim": 64},
    "mamba2": {"features": f.Silu(), "values": f.Silu(), "decay": d.Scalar(), "conv": 4,
               "update": d.Additive(step=True), "skip": True, "output": GatedRMSNorm(),
               "scale": 1.0, "heads": 1, "value_heads": 6, "key_dim": 128, "value_dim": 64},
    "retnet": {"decay": d.Fixed(), "position": Rope(), "output": GatedRMSNorm(), "heads": 2,
               "value_heads": 2, "key_dim": 64, "value_dim": 128},
    "linear": {"features": f.Elu1(), "normalizer": "sum", "output": PlainOutput(), "heads": 3,
               "value_heads": 3, "key_dim": 64, "value_dim": 64},
}  # fmt: skip
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 3e-2}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
NAMES = pytest.mark.parametrize("name", list(POINTS))


def layers(name: str, dtype: torch.dtype) -> tuple[Recurrence, Recurrence]:
    """One of `dtype`, and one of float64 with the same weights."""
    torch.manual_seed(0)
    ours = Recurrence(DIM, **POINTS[name]).cuda().to(dtype)
    return ours, copy.deepcopy(ours).double()


def noise(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, DIM, device="cuda").to(dtype)


def call(layer: nn.Module, x: Tensor, cache: Cache | None = None,
         lengths: list[int] | None = None) -> Tensor:  # fmt: skip
    starts = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    sequences = Sequences.of(x, starts, None if cache is None else cache.seen)
    y: Tensor = layer(x, Context(sequences, cache))
    if cache is not None:
        cache.advance(sequences)
    return y


def new_cache(layer: Recurrence, batch: int, dtype: torch.dtype) -> Cache:
    state = layer.new_state(batch, None, dtype, torch.device("cuda"))
    assert fused_recurrence.holds(state)
    return Cache({"": state}, torch.zeros(batch, dtype=torch.int64, device="cuda"), None)


def error(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@NAMES
@DTYPES
@pytest.mark.parametrize("lengths", [None, [1, 130, 3, 66]], ids=["rows", "packed"])
def test_outputs_and_gradients(name: str, dtype: torch.dtype, lengths: list[int] | None) -> None:
    ours, exact = layers(name, dtype)
    x, up = (noise(1 if lengths else 2, 200, dtype=dtype) for _ in range(2))
    results = []
    for layer, way in ((exact, "eager"), (ours, "kernels")):
        leaf = x.to(layer.o_proj.weight.dtype).requires_grad_()
        with backend.forced(way):
            y = call(layer, leaf, lengths=lengths)
        results.append([y, *torch.autograd.grad(y, [leaf, *layer.parameters()], up.to(y.dtype))])
    names = ["y", "x", *(each for each, _ in ours.named_parameters())]
    errors = {each: error(*both[::-1]) for each, *both in zip(names, *results, strict=True)}
    assert all(each < TOLERANCE[dtype] for each in errors.values()), errors


@NAMES
@DTYPES
@torch.no_grad()
def test_prefills_steps_and_rollback(name: str, dtype: torch.dtype) -> None:
    ours, exact = layers(name, dtype)
    x, other = noise(2, 120, dtype=dtype), noise(2, 8, dtype=dtype)
    wanted = call(exact, x.double())
    cache = new_cache(ours, 2, dtype)
    found = [call(ours, x[:, :70], cache)]
    found += [call(ours, x[:, t : t + 1], cache) for t in range(70, 80)]
    found.append(call(ours, torch.cat([x[:, 80:83], other[:, :5]], dim=1), cache)[:, :3])
    cache.rollback(5)
    found += [call(ours, part, cache) for part in x[:, 83:].split([1, 8, 20, 8], dim=1)]
    assert error(torch.cat(found, dim=1), wanted) < TOLERANCE[dtype]


@torch.no_grad()
def test_a_step_is_captured_in_a_graph() -> None:
    ours, _ = layers("gated deltanet", torch.bfloat16)
    x = noise(2, 40, dtype=torch.bfloat16)
    plain, cache = (new_cache(ours, 2, torch.bfloat16) for _ in range(2))
    call(ours, x[:, :20], plain)
    wanted = [call(ours, x[:, t : t + 1], plain) for t in range(20, 40)]
    call(ours, x[:, :20], cache)
    token, seen = x[:, 20:21].clone(), cache.seen.clone()
    states = {name: tensor.clone() for name, tensor in cache.states[""].items()}

    def step() -> Tensor:
        where = Sequences.of(token, seen=seen)
        y: Tensor = ours(token, Context(where, cache))
        seen.add_(1)
        return y

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = step()
    for name, tensor in cache.states[""].items():
        tensor.copy_(states[name])
    seen.copy_(cache.seen)
    for t in range(20, 40):
        token.copy_(x[:, t : t + 1])
        graph.replay()
        assert torch.equal(y, wanted[t - 20])


@torch.no_grad()
def test_autocast() -> None:
    ours, exact = layers("gated deltanet", torch.float32)
    x = noise(2, 100, dtype=torch.float32)
    wanted = call(exact, x.double())
    cache = new_cache(ours, 2, torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = torch.cat([call(ours, part, cache) for part in x.split([90, 1, 9], dim=1)], dim=1)
    assert found.dtype == torch.bfloat16
    assert error(found, wanted) < TOLERANCE[torch.bfloat16]


def test_eager_stays_at_hand() -> None:
    ours, _ = layers("deltanet", torch.float32)
    x = noise(1, 70, dtype=torch.float32)
    with backend.forced("eager"):
        wanted = call(ours, x)
    torch.testing.assert_close(call(ours, x), wanted, atol=1e-4, rtol=1e-3)
