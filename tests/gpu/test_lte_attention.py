"""Attention over interval lists on a GPU: forward and every gradient, against float64.

The reference hides the pairs of the whole score matrix whose key is dead, by the same death times.
Outputs start as NaN, so that an element that no program writes is seen.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.attention import launch, op
from mixerlang.kernels.attention.intervals import NEVER, SEGMENT, Intervals
from mixerlang.kernels.attention.variant import Variant
from mixerlang.kernels.eviction import reference

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 5e-6}


def make(
    tokens: int,
    heads: int = 2,
    kv_heads: int = 1,
    dim: int = 64,
    value_dim: int | None = None,
    batch: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> list[Tensor]:
    torch.manual_seed(seed)
    shapes = [(heads, dim), (kv_heads, dim), (kv_heads, value_dim or dim)]
    return [
        torch.randn(batch, tokens, *shape, device="cuda").to(dtype).requires_grad_()
        for shape in shapes
    ]


def scores(kind: str, batch: int, kv_heads: int, tokens: int) -> Tensor:
    """Logits of which a token is a candidate where they are positive."""
    shape = (batch, kv_heads, tokens)
    if kind == "rising":
        return torch.arange(1.0, tokens + 1, device="cuda").expand(shape)
    if kind == "random":
        return torch.randn(shape, device="cuda")
    return torch.full(shape, 1.0 if kind == "all" else -1.0, device="cuda")


def lists(z: Tensor, window: int, budget: int | None, cu: Tensor | None, sinks: int) -> Intervals:
    found = reference.intervals(z, window, budget, sinks, 0.0, cu, segment=SEGMENT)
    return Intervals(*(x if x is None else x.contiguous() for x in found))


def dense(
    q: Tensor, k: Tensor, v: Tensor, death: Tensor, cu: Tensor | None
) -> tuple[Tensor, Tensor]:
    tokens, repeat = q.shape[1], q.shape[2] // k.shape[2]
    index = torch.arange(tokens, device=q.device)
    start = torch.zeros_like(index)
    for edge in [] if cu is None else cu.tolist():
        start = torch.where(index >= edge, edge, start)
    t = index[:, None]
    seen = (index <= t) & (start == start[:, None]) & (t < death[:, :, None])
    k, v = (x.repeat_interleave(repeat, dim=2) for x in (k, v))
    s = torch.einsum("bthd,bjhd->bhtj", q, k) * q.shape[-1] ** -0.5
    s = s.masked_fill(~seen.repeat_interleave(repeat, dim=1), -torch.inf)
    return torch.einsum("bhtj,bjhd->bthd", s.softmax(-1), v), s.logsumexp(-1)


def compare(
    inputs: list[Tensor],
    window: int,
    budget: int | None,
    kind: str = "random",
    cu: list[int] | None = None,
    sinks: int = 2,
) -> None:
    """o, lse, dq, dk, dv and the scores' gradient, and all of them twice the same."""
    batch, tokens, kv_heads, _ = inputs[1].shape
    packed = None if cu is None else torch.tensor(cu, device="cuda", dtype=torch.int32)
    score = scores(kind, batch, kv_heads, tokens).contiguous().requires_grad_()
    intervals = lists(score.detach(), window, budget, packed, sinks)
    leaves = [*inputs, score]

    def run() -> list[Tensor]:
        o, lse = op.attention_with_lse(
            *inputs, window=window, intervals=intervals, score=score, cu_seqlens=packed
        )
        torch.manual_seed(1)
        slopes = torch.randn_like(o), torch.randn_like(lse)
        return [o, lse, *torch.autograd.grad((o, lse), leaves, slopes), *slopes]

    *found, do, dlse = run()
    wide = [x.detach().double().requires_grad_() for x in inputs]
    o, lse = dense(*wide, intervals.death, packed)
    dq, dk, dv = torch.autograd.grad((o, lse), wide, (do.double(), dlse.double()))
    expected = [o, lse, dq, dk, dv, (dv * wide[2]).sum(-1).transpose(1, 2)]
    tolerance = TOLERANCE[inputs[0].dtype]
    names = ("o", "lse", "dq", "dk", "dv", "dscore")
    for name, got, want in zip(names, found, expected, strict=True):
        # A single visible key has dq = dk = 0: measure against the size of what cancels there.
        scale = max(want.norm().item(), 0.1 * want.numel() ** 0.5)
        error = (got.double() - want).norm().item() / scale
        assert error < tolerance, f"{name}: {error:.1e}"
    for first, second in zip(found, run(), strict=False):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("budget", [100, None])
@pytest.mark.parametrize("dim", [16, 64, 80, 96, 100, 112, 128, 192, 256])
def test_shipped_tiles(dim: int, budget: int | None, dtype: torch.dtype) -> None:
    for seed in range(3):
        compare(make(900, 2, 1, dim, dtype=dtype, seed=seed), 200, budget)


@pytest.mark.parametrize("budget", [300, None])
@pytest.mark.parametrize("kind", ["random", "rising", "all", "none"])
@pytest.mark.parametrize("tokens", [1, 7, 129, 900, 3000])
def test_lengths_and_scores(tokens: int, kind: str, budget: int | None) -> None:
    compare(make(tokens, 2, 2), 300, budget, kind)


@pytest.mark.parametrize(("window", "budget"), [(1, 3), (64, 1), (129, 2000), (2000, 64), (100, 5)])
def test_windows_and_budgets(window: int, budget: int) -> None:
    compare(make(1300, 2, 1), window, budget, sinks=1)
    compare(make(1300, 2, 1), window, budget, "rising", sinks=1)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (3, 1), (6, 2), (5, 5)])
def test_head_groups_and_batches(heads: int, kv_heads: int) -> None:
    compare(make(1200, heads, kv_heads, batch=3), 100, 80)
    compare(make(1200, heads, kv_heads, batch=3), 100, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("dim", "value_dim"), [(64, 128), (128, 64), (100, 48)])
def test_values_of_another_dim(dim: int, value_dim: int, dtype: torch.dtype) -> None:
    compare(make(700, 2, 1, dim, value_dim, dtype=dtype), 90, 60)


@pytest.mark.parametrize("kind", ["random", "rising"])
@pytest.mark.parametrize("budget", [40, None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "cu", [[0, 1, 2, 66, 1500], [0, 128, 256, 1500], [0, 1500], [0, 7, 7, 700, 1499, 1500]]
)
def test_packed(cu: list[int], dtype: torch.dtype, budget: int | None, kind: str) -> None:
    compare(make(1500, 2, 1, dtype=dtype), 60, budget, kind, cu)


@pytest.mark.parametrize("kind", ["random", "rising"])
def test_many_runs(kind: str) -> None:
    """Keys that live through several runs: their partial sums are added in order."""
    compare(make(11_000, 1, 1), 256, 128, kind)


def test_strided_inputs() -> None:
    fused = torch.randn(2, 900, 4 * 3 * 64 + 64, device="cuda", dtype=torch.bfloat16)
    parts = fused[..., 32:-32].unflatten(-1, (3, 4, 64)).unbind(2)
    compare([x.requires_grad_() for x in parts], 128, 50)
    heads_first = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in parts]
    compare([x.requires_grad_() for x in heads_first], 128, 50)
    odd = torch.randn(3, 1, 900, 2, 67, device="cuda", dtype=torch.bfloat16)[..., 3:].unbind(0)
    assert odd[0].data_ptr() % 16 and odd[0].stride(2) % 16
    compare([x.detach().requires_grad_() for x in odd], 128, 50)


def test_slots_beyond_32_bits() -> None:
    """The list of the last run lies 2^31 slots from the first: its one key gets its row."""
    budget, run, window, dim = 2**20, 1024, 64, 16
    tokens = 2 * run * SEGMENT + 2 * window
    segments, key = -(-tokens // SEGMENT), run * SEGMENT + 5
    torch.utils.deterministic.fill_uninitialized_memory = False
    held = torch.empty(1, 1, segments, budget, dtype=torch.int32, device="cuda")
    held[0, 0, 2 * run, 0] = key
    alive = torch.zeros(1, 1, segments, dtype=torch.int32, device="cuda")
    alive[0, 0, 2 * run] = 1
    death = torch.full((1, 1, tokens), NEVER, dtype=torch.int32, device="cuda")
    rows = torch.empty(2, 1, 1, 3, budget, dim, device="cuda")
    rows[:, 0, 0, 2, 0] = torch.arange(2.0 * dim, device="cuda").view(2, dim)
    grads = torch.ones(2, 1, tokens, 1, dim, device="cuda", dtype=torch.bfloat16)
    variant = Variant(1, 1, dim, dim, 0.25, window, intervals=True, budget=budget)
    add = launch.launcher("backward_held", variant, grads)
    strides = launch.strides(*grads)
    add((1, 2, 1), *grads, *rows, death, held, alive, *strides, tokens, run)
    expected = torch.ones_like(grads)
    expected[:, 0, key, 0] += rows[:, 0, 0, 2, 0]
    assert torch.equal(grads, expected)
