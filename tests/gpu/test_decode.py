"""The decode kernels on a GPU: walks with tokens taken back, shapes, long caches, CUDA graphs."""

from __future__ import annotations

import itertools
from typing import Any

import decoding
import pytest
import torch
from decoding import Case
from torch import Tensor

from mixerlang.kernels.decode import dense, launch, op
from mixerlang.kernels.decode.layout import Layout
from mixerlang.kernels.decode.rule import Rule
from mixerlang.kernels.eviction import op as eviction
from mixerlang.kernels.scorer import op as scoring

pytestmark = pytest.mark.gpu

TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
LEARNED = {"kind": "learned", "lookahead": 2}
LAYOUTS = {
    "full": Layout(),
    "strided": Layout(3, strided=4, sinks=2, rate=2),
    "window": Layout(7),
    "dilated": Layout(12, rate=3),
    "window and sinks": Layout(5, sinks=3),
    "random": Layout(4, budget=5, kind="random"),
    "norm": Layout(9, budget=4, kind="norm"),
    "learned": Layout(25, budget=6, sinks=2, **LEARNED),
}
PAPER = Layout(768, budget=512, sinks=4, kind="learned", lookahead=6)


@pytest.mark.parametrize("heads", [4, 2], ids=["groups", "single"])
@pytest.mark.parametrize("splits", [1, 5])
@pytest.mark.parametrize("name", LAYOUTS)
def test_steps_follow_the_rule(
    name: str, splits: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "choose", lambda *_: launch.Plan(splits, 16, 4, 2))
    extra: dict[str, Any] = {"softcap": 3.0, "sink_logits": True, "slopes": True}
    case = Case(
        LAYOUTS[name], batch=3, heads=heads, kv_heads=2, length=90, dtype=torch.float32,
        device="cuda", **(extra if splits > 1 else {}),
    )  # fmt: skip
    if case.layout.kind == "learned":
        monkeypatch.setattr(op, "scoring", decoding.scorer_of(case)[1])
    expected = case.expected()
    for widths in ((1,), (1, 3, 8)):
        seen = torch.zeros(case.batch, dtype=torch.int64, device="cuda")
        found = decoding.walk(case, case.new_state(), seen, widths)
        torch.testing.assert_close(found.double().cpu(), expected, rtol=0, atol=2e-5)


def rows(tokens: int, heads: int, kv_heads: int, dim: int, value_dim: int, batch: int,
         dtype: torch.dtype) -> list[Tensor]:
    shapes = [(heads, dim), (kv_heads, dim), (kv_heads, value_dim), (kv_heads, dim)]
    return [torch.randn(batch, tokens, *shape, device="cuda").to(dtype) for shape in shapes]


def prefilled(
    layout: Layout, batch: int, kv_heads: int, dim: int, value_dim: int, length: int,
    dtype: torch.dtype, max_length: int | None = None,
) -> op.State:
    """A state after `length` random tokens; scores with many ties."""
    state = op.new_state(
        layout, batch, kv_heads, dim, value_dim, max_length or length + 1000, dtype, "cuda"
    )
    _, k, v, raw_k = rows(length, kv_heads, kv_heads, dim, value_dim, batch, dtype)
    z = death = None
    if layout.evicts:
        assert layout.window is not None
        z = (torch.randn(batch, kv_heads, length, device="cuda") * 8).round() / 8 + 1
        floor = 0.0 if layout.kind == "learned" else -torch.inf
        death = eviction.intervals(
            z.cpu(), window=layout.window, budget=layout.budget, sinks=layout.sinks, floor=floor
        ).death.cuda()
    op.fill(
        layout, state, k, v, next=torch.full((batch,), length, device="cuda"), raw_k=raw_k, z=z,
        death=death,
    )  # fmt: skip
    return state


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize(
    ("dtype", "heads", "kv_heads", "dim", "value_dim"),
    [
        (torch.bfloat16, 16, 16, 64, 64), (torch.bfloat16, 8, 1, 80, 96),
        (torch.bfloat16, 3, 3, 100, 20), (torch.bfloat16, 4, 2, 256, 256),
        (torch.bfloat16, 40, 2, 192, 128), (torch.float16, 16, 4, 128, 128),
        (torch.float32, 4, 2, 64, 64), (torch.float32, 4, 1, 256, 256),
        (torch.float16, 8, 8, 128, 128), (torch.bfloat16, 4, 4, 256, 256),
        (torch.float32, 3, 3, 192, 80),
    ],
    ids=str,
)  # fmt: skip
def test_paper_sized_caches(
    dtype: torch.dtype, heads: int, kv_heads: int, dim: int, value_dim: int, tokens: int
) -> None:
    torch.manual_seed(0)
    batch, length = 2, 2100
    state = prefilled(PAPER, batch, kv_heads, dim, value_dim, length, dtype)
    twin = {name: tensor.clone() for name, tensor in state.items()}
    rule = Rule(dim**-0.5)
    seen = torch.tensor([length, length], device="cuda")
    for _ in range(2):
        q, k, v, raw_k = rows(tokens, heads, kv_heads, dim, value_dim, batch, dtype)
        found = launch.step(PAPER, state, q, k, v, raw_k, seen, rule)
        expected = dense.step(PAPER, twin, q, k, v, raw_k, seen, rule)
        error = (found - expected).float().norm() / expected.float().norm()
        assert error < TOLERANCE[dtype]
        assert tokens > 1 or torch.equal(launch.attend(PAPER, state, q, None, seen, rule), found)
        for name in state:
            assert torch.equal(state[name], twin[name]), name
        seen = seen + torch.tensor([tokens, tokens // 2], device="cuda")


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_a_long_cache_with_little_in_it(kv_heads: int) -> None:
    layout, rule = Layout(), Rule(0.1)
    state = op.new_state(layout, 2, kv_heads, 64, 64, 100_000, torch.bfloat16, "cuda")
    state["k"].fill_(torch.nan)
    state["v"].fill_(torch.nan)
    seen = torch.tensor([0, 777], device="cuda")
    state["k"][:, :, :777].normal_()
    state["v"][:, :, :777].normal_()
    twin = {name: tensor[:, :, :2000].clone() for name, tensor in state.items()}
    twin["k"].nan_to_num_()
    twin["v"].nan_to_num_()
    q, k, v, _ = rows(3, 8, kv_heads, 64, 64, 2, torch.bfloat16)
    found = launch.step(layout, state, q, k, v, None, seen, rule)
    expected = dense.step(layout, twin, q, k, v, None, seen, rule)
    torch.testing.assert_close(found, expected, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize(
    "layout",
    [Layout(300, budget=130, kind="random"), Layout(300, budget=130, kind="norm"), Layout(),
     Layout(300, sinks=4), Layout(100, budget=30, sinks=4, kind="learned", lookahead=6)],
    ids=lambda layout: f"{layout.kind}-{layout.window}-{layout.sinks}",
)
def test_graph_replays_are_eager_steps(layout: Layout, tokens: int) -> None:
    torch.manual_seed(0)
    batch, heads, kv_heads, dim, steps = 3, 8, 4, 64, 200
    state = op.new_state(layout, batch, kv_heads, dim, dim, 2000, torch.bfloat16, "cuda")
    twin = {name: tensor.clone() for name, tensor in state.items()}
    first = torch.tensor([0, 10, 250], device="cuda")
    new = [rows(tokens, heads, kv_heads, dim, dim, batch, torch.bfloat16) for _ in range(steps)]

    scorer = None
    if layout.kind == "learned":
        scorer = scorer_of(*convolutions(kv_heads, dim), kv_heads, dim, torch.bfloat16)

    def step(state: op.State, inputs: list[Tensor], seen: Tensor) -> Tensor:
        q, k, v, raw_k = inputs
        return op.step(layout, state, q, k, v, seen=seen, raw_k=raw_k, scorer=scorer)

    eager = []
    seen = first.clone()
    for inputs in new:
        eager.append(step(twin, inputs, seen))
        seen += tokens
    still, seen = [x.clone() for x in new[0]], first.clone()
    spare = {name: tensor.clone() for name, tensor in state.items()}
    step(spare, still, seen)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step(state, still, seen)
        seen += tokens
    seen.copy_(first)
    for inputs, expected in zip(new, eager, strict=True):
        for target, x in zip(still, inputs, strict=True):
            target.copy_(x)
        graph.replay()
        assert torch.equal(out, expected)
    for name in state:
        assert torch.equal(state[name], twin[name]), name


def convolutions(heads: int, dim: int) -> tuple[list[Tensor], list[Tensor]]:
    """Random weights and biases of the paper's scorer."""
    channels = [2 * dim, dim, dim // 2, dim // 4]
    pairs = list(itertools.pairwise(channels))
    weights = [torch.randn(heads * o, i, 3, device="cuda") * (2 / i) ** 0.5 for i, o in pairs]
    weights.append(torch.randn(heads, channels[-1], 1, device="cuda"))
    return weights, [torch.randn(len(w), device="cuda") for w in weights]


def scorer_of(
    weights: list[Tensor], biases: list[Tensor], heads: int, dim: int, dtype: torch.dtype
) -> op.Scorer:
    network = scoring.network_of(dim, dim, weights, heads, (2, 2, 2))
    return op.Scorer(scoring.pack(weights, biases, network, dtype), network)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1, 4])
def test_a_prefill_keeps_what_steps_keep(tokens: int, dtype: torch.dtype) -> None:
    """With the real scorer, bit for bit: the same scores, the same tokens in the slots."""
    torch.manual_seed(0)
    batch, heads, dim, length = 2, 2, 32, 400
    layout = Layout(100, budget=16, sinks=4, kind="learned", lookahead=6)
    weights, biases = convolutions(heads, dim)
    scorer = scorer_of(weights, biases, heads, dim, dtype)
    q, k, v, raw_k = rows(length, heads, heads, dim, dim, batch, dtype)
    state = op.new_state(layout, batch, heads, dim, dim, None, dtype, "cuda")
    seen = torch.zeros(batch, dtype=torch.int64, device="cuda")
    for start in range(0, length, tokens):
        new = [x[:, start : start + tokens] for x in (q, k, v)]
        op.step(layout, state, *new, seen=seen, raw_k=raw_k[:, start : start + tokens],
                scorer=scorer)  # fmt: skip
        seen += tokens
    z = scoring.logits(raw_k, v, weights, biases, dilations=(2, 2, 2))
    final = int(state["scored"].min())
    assert final >= length - layout.lookahead - layout.period - tokens + 1
    ring = state["k"].shape[2] - layout.slots
    recent = torch.arange(length - layout.window, final, device="cuda")
    assert torch.equal(state["z"][:, :, recent % ring], z[:, :, recent])
    # Steps fold what the next query drops when it comes; a prefill stands where the last one ended.
    filled = op.new_state(layout, batch, heads, dim, dim, None, dtype, "cuda")
    last = length - tokens + 1
    death = eviction.intervals(
        z[:, :, :last].contiguous(), window=layout.window, budget=layout.budget, sinks=layout.sinks
    ).death
    op.fill(layout, filled, k[:, :last], v[:, :last], next=torch.full_like(seen, last),
            raw_k=raw_k[:, :last], z=z[:, :, :last], death=death)  # fmt: skip
    assert (state["folded"] == last - layout.window).all()
    stepped, order = state["position"].sort(dim=-1)
    direct, other = filled["position"].sort(dim=-1)
    assert torch.equal(stepped, direct) and (direct >= 0).all()
    for name in ("k", "v"):
        pair = [
            x[name][:, :, ring:].gather(2, index[..., None].expand(-1, -1, -1, dim))
            for x, index in ((state, order), (filled, other))
        ]
        assert torch.equal(*pair), name
