"""Recurrences of a spec's own equations as layers: every way of calling one gives what the
equations say, read by an interpreter of its own in numpy."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import mixerlang
from mixerlang.diagnostics import Diagnostics
from mixerlang.ir.build import build
from mixerlang.nn import scan as rooms
from mixerlang.nn.operands import OperandLayer
from mixerlang.primitives import scan
from mixerlang.primitives.base import Workload
from mixerlang.primitives.scan import Scan
from mixerlang.semantics import open_text

DIM, HEADS, VALUE_HEADS, KEY, VALUE = 12, 2, 4, 3, 5
CALL = f"heads={HEADS}, value_heads={VALUE_HEADS}, key_dim={KEY}, value_dim={VALUE}, output=none"

DECLARED = "key e; value u; gate c; gate g[key]; decay w[value]; weight d; weight h[key]"
SYMBOLS = {"key": ["q", "k", "e", "g", "h"], "value": ["v", "u", "w"], "": ["a", "b", "c", "d"]}

STEPS = [
    "a * S", "S * w", "g * S * w", "c * outer(k, S.T @ e)", "outer(S @ u, w) / 2", "S.T.T",
    "(I - b * outer(k, e)) @ S", "S @ (I - outer(u, w) / 4)", "diag(g) @ S @ diag(w)", "-S / 3",
    "tanh(k @ h) * S", "outer(k, k) @ S", "exp(-(k @ k)) * outer(q @ S @ u * k, v)", "0 * S",
]  # fmt: skip
WRITES = ["b * outer(k, v)", "outer(e, u - v)", "c * outer(g * e, w * v)", "outer(k, silu(v))",
          "2 * outer(h, v)", "outer(1 - g, v) / (1 + k @ k)"]  # fmt: skip
OUTPUTS = ["S.T @ q", "q @ S + d * v", "S.T @ (q + h)", "tanh(S.T @ q)",
           "u / (2 + k @ k) + S.T @ e",
           "S.T @ q / (3 + (k @ S) @ v * (k @ S @ v))", "sigmoid(S.T @ k) * (q @ S)"]  # fmt: skip


def random_rule(seed: int) -> str:
    """A random rule linear in its states, which stay of moderate size."""
    pick = random.Random(seed)
    steps = " + ".join(f"{term}" for term in pick.sample(STEPS, pick.randint(1, 2)))
    lines = [f"S = 0.4 * ({steps})", f"S += 0.5 * ({pick.choice(WRITES)})"]
    state = ["state S[key, value]"]
    if pick.random() < 0.4:
        state.append("state M[value, key]")
        lines.insert(1, "M = 0.5 * c * M + 0.2 * (outer(v, k) - S.T)")
        lines.append("S = S - 0.3 * M.T")
    if pick.random() < 0.4:
        state.append("state z[key]")
        lines.append("z = 0.5 * z * g + k - 0.1 * S @ v")
        lines.append("S += 0.1 * outer(z, v)")
    if pick.random() < 0.3:
        lines.insert(0, "r = v - S.T @ k")
        lines.append("S += b / 9 * outer(k, r)")
    return "; ".join([*state, DECLARED, *lines, f"o = {pick.choice(OUTPUTS)}"])


RULES = {f"random {seed}": random_rule(seed) for seed in range(12)} | {
    "two-sided decay": "state S[key, value]; decay w[value]; S = a * S * w; "
    "S += b * outer(k, v); o = S.T @ q",
    "momentum": "state S[key, value]; state M[key, value]; M = a * M + 0.3 * outer(k, v - S.T @ k);"
    " S = (1 - b / 9) * S + 0.5 * M; o = S.T @ q",
    "values first": "state S[value, key]; S = a * S @ (I - b * outer(k, k)) + dt * outer(v, k); "
    "o = S @ q",
    "vector": "state z[value]; gate c[value]; z = c * z + (1 - c) * v; o = silu(z)",
    "nothing but weights": "state z[value]; weight h[value]; z = 0.5 * z + h; o = z",
}


def term_of(rule: str, call: str = CALL) -> Scan:
    lines = rule.replace("; ", "\n")
    project = open_text(f"recurrence rule {{\n{lines}\n}}\nmodel m {{ vocab = 8; dim = {DIM}\n"
                        f"context = 8; layers = [rule({call})] }}")  # fmt: skip
    model = project.resolve(project.models["m"])
    assert model is not None and not project.diagnostics.errors, [
        item.message for item in project.diagnostics
    ]
    op = next(node.op for node in build(model, Diagnostics()) if node.op.kind == "mixer")
    assert isinstance(op, Scan), rule
    return op


GALLERY = Path(__file__).parents[3] / "specs/rules/equations.mix"
SOLVE = torch.ops.aten.linalg_solve_triangular


def solve_flops(_: object, b: tuple[int, ...], *__: object, **___: object) -> int:
    """torch counts a triangular system as nothing; here as the product that it undoes."""
    return 2 * torch.Size(b).numel() * b[-2]


# ------------------------------------------------------- what the equations say, one head at a time


@dataclass
class Array:
    """A number, vector or matrix of one head with named axes, under Python's own operators."""

    x: Any
    axes: tuple[str, ...] = ()

    __array_ufunc__ = None

    def with_(self, other: Any, function: Callable[[Any, Any], Any]) -> Array:
        other = other if isinstance(other, Array) else Array(other)
        large = max(self, other, key=lambda each: len(each.axes))
        spread = []
        for each in (self, other):
            missing = [place for place, axis in enumerate(large.axes) if axis not in each.axes]
            spread.append(np.expand_dims(np.asarray(each.x), missing) if each.axes else each.x)
        return Array(function(*spread), large.axes)

    def __add__(self, other: Any) -> Array:
        return self.with_(other, np.add)

    def __sub__(self, other: Any) -> Array:
        return self.with_(other, np.subtract)

    def __mul__(self, other: Any) -> Array:
        return self.with_(other, np.multiply)

    def __truediv__(self, other: Any) -> Array:
        return self.with_(other, np.divide)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Array:
        return -1 * self + other

    def __neg__(self) -> Array:
        return -1 * self

    def __matmul__(self, other: Array) -> Array:
        assert self.axes[-1] == other.axes[0]
        return Array(np.tensordot(self.x, other.x, 1), self.axes[:-1] + other.axes[1:])

    @property
    def T(self) -> Array:
        return Array(self.x.T, self.axes[::-1])


class Eye:
    """I, as large as what it is added to."""

    def __sub__(self, other: Array) -> Array:
        return Array(np.eye(other.x.shape[0]) - other.x, other.axes)


def map_(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    return lambda x: Array(function(x.x), x.axes)


FUNCTIONS = {
    "outer": lambda x, y: Array(np.multiply.outer(x.x, y.x), x.axes + y.axes),
    "diag": lambda x: Array(np.diag(x.x), x.axes * 2),
    "tanh": map_(np.tanh),
    "exp": map_(np.exp),
    "sigmoid": map_(lambda x: 1 / (1 + np.exp(-x))),
    "silu": map_(lambda x: x / (1 + np.exp(-x))),
    "I": Eye(),
}


def said(rule: str, term: Scan, values: dict[str, Any]) -> Tensor:
    """o (B, T, value_heads, value_dim) of operands (B, T, value_heads, *axes)."""
    lines = [line for line in rule.split("; ") if "=" in line]
    sizes = {"key": KEY, "value": VALUE}
    batch, length = next(iter(values.values()))[0].shape[:2]
    o = np.zeros((batch, length, VALUE_HEADS, VALUE))
    for n, head in np.ndindex(batch, VALUE_HEADS):
        held = {s.name: Array(np.zeros([sizes[a] for a in s.axes]), s.axes)
                for s in term.rule.states}  # fmt: skip
        for t in range(length):
            names = {**FUNCTIONS, **held}
            names |= {k: Array(x[n, t, head], axes) for k, (x, axes) in values.items()}
            for line in lines:
                try:
                    exec(line, {}, names)
                except NameError:  # of a state or operand that the output does not need
                    continue
            held = {name: names[name] for name in held}
            o[n, t, head] = names["o"].x
    return torch.from_numpy(o)


class Recorder:
    """The operands of a layer's calls, and the o before its last projection."""

    def __init__(self, layer: rooms.Scan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: dict[str, Any] = {}
        scan = layer._scan

        def recorded(values: Any, *arguments: Any) -> Any:
            self.values = {name: (v.tensor.detach().numpy(), v.axes) for name, v in values.items()}
            self.o, held = scan(values, *arguments)
            return self.o, held

        monkeypatch.setattr(layer, "_scan", recorded)


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Iterator[str]:
    yield RULES[request.param]


@pytest.fixture
def layer(rule: str, layer_of: Any) -> rooms.Scan:
    torch.manual_seed(0)
    made: rooms.Scan = layer_of(term_of(rule), DIM).double().eval()
    return made


@torch.no_grad()
def test_a_layer_does_what_its_equations_say(
    rule: str, layer: rooms.Scan, Caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 7, DIM, dtype=torch.float64)
    recorder = Recorder(layer, monkeypatch)
    Caller(layer)(x)
    wanted = said(rule, term_of(rule), recorder.values)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(recorder.o, wanted, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_forward_prefill_steps_and_packed_agree(layer: rooms.Scan, Caller: Any) -> None:
    x = torch.randn(2, 70, DIM, dtype=torch.float64)
    full = Caller(layer)(x)
    for sizes in ([2, 1, 65, 2], [1] * 70):
        cached = Caller(layer)
        cached.start(x)
        torch.testing.assert_close(torch.cat([cached(p) for p in x.split(sizes, 1)], 1), full)
    packed = torch.cat([x[:1, :3], x[1:], x[:1, :1]], dim=1)
    parts = Caller(layer)(packed, cu_seqlens=[0, 3, 73, 74])
    torch.testing.assert_close(parts, torch.cat([full[:1, :3], full[1:], full[:1, :1]], dim=1))


def test_segments_give_the_same_gradients(
    layer: rooms.Scan, Caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(1, 13, DIM, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters()]

    def gradients() -> tuple[Tensor, ...]:
        y = Caller(layer)(x, cu_seqlens=[0, 9, 13])
        return torch.autograd.grad(y.square().sum(), wanted, materialize_grads=True)

    whole = gradients()
    monkeypatch.setattr(rooms, "SEGMENT", 4)
    for ours, theirs in zip(gradients(), whole, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs)


def test_costs_are_those_of_the_term(rule: str, layer_of: Any, bound: Any, Caller: Any) -> None:
    term = bound(term_of(rule, CALL.replace("none", "gated_rmsnorm") + ", conv=3"), DIM)
    layer = layer_of(term, DIM)
    assert sum(p.numel() for p in layer.parameters()) == term.parameters(DIM)
    state = layer.new_state(2, None, torch.bfloat16, torch.device("cpu"))
    held = sum(tensor.nbytes for tensor in state.values())
    assert held == term.cache_bytes(DIM, Workload(batch=2, length=9))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Caller(layer)(torch.randn(2, 9, DIM))
    assert counter.get_total_flops() == term.forward_flops(DIM, Workload(batch=2, length=9))


@torch.no_grad()
def test_half_precision_keeps_a_float32_state(layer_of: Any, Caller: Any) -> None:
    torch.manual_seed(0)
    layer = layer_of(term_of(RULES["two-sided decay"]), DIM)
    x = torch.randn(2, 9, DIM)
    exact = Caller(layer)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = Caller(layer)(x)
    assert 0 < (rounded.float() - exact).norm() < 0.05 * exact.norm()
    caller = Caller(layer.bfloat16())
    caller.start(x.bfloat16())
    y = caller(x.bfloat16())
    assert y.dtype == torch.bfloat16 and (y - exact).norm() < 0.05 * exact.norm()
    assert caller.cache.states[""]["S"].dtype == torch.float32


def test_a_rule_is_read_and_never_run() -> None:
    for text in (
        "o = __import__('os')",
        "o = S.x",
        "o = f(S)",
        "o = S if S else S",
        "S",
        "o += S",
        "o = S[0]",
        "import os",
        "o = outer.__class__",
        "o = 'a'",
        "o = tanh(S, S)",
    ):
        with pytest.raises(ValueError, match="no (equation|meaning)"):
            rooms.Equations((text,))


@torch.no_grad()
def test_the_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole model, its layers points and scans: prefill and steps, and its forward FLOPs."""
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    graph, diagnostics = mixerlang.build_graph(GALLERY)
    assert graph is not None and [item.code for item in diagnostics] == ["MX503"]
    model = mixerlang.load(GALLERY, seed=0).eval()
    assert sum(p.numel() for p in model.parameters()) == graph.parameters()
    tokens = torch.randint(0, 256, (2, 67))
    with FlopCounterMode(display=False, custom_mapping={SOLVE: solve_flops}) as counter:
        full = model(tokens)
    said_ = mixerlang.analyze(graph, batch=2, length=67).total["flops.forward.dense"]
    assert counter.get_total_flops() == said_
    cache = model.new_cache(2)
    parts = [model(part, cache=cache) for part in tokens.split([64, 1, 2], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-4, rtol=1e-4)


def test_costs_count_the_segments_of_the_layer() -> None:
    assert rooms.SEGMENT == scan.SEGMENT


def test_operands_that_have_no_forward() -> None:
    layer = OperandLayer(rooms.RuleOperand("k", "key"))
    with pytest.raises(TypeError, match="OperandLayer has no forward"):
        layer(None)
