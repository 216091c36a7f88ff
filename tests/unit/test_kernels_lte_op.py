"""The attention op over interval lists on the CPU: mathematics, gradients, what torch asks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.attention import op
from mixerlang.kernels.attention.call import Extras
from mixerlang.kernels.attention.intervals import NEVER, Intervals
from mixerlang.kernels.attention.variant import Rule
from mixerlang.kernels.eviction.op import intervals

TOKENS, HEADS, KV_HEADS, WINDOW = 14, 4, 2, 3
CASES = [(2, None), (None, None), (2, [0, 1, 8, 14]), (None, [0, 6, 14])]


def make(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(3)
    shapes = [(HEADS, 6), (KV_HEADS, 6), (KV_HEADS, 5)]
    return [torch.randn(1, TOKENS, *shape, dtype=dtype, requires_grad=True) for shape in shapes]


def lists(budget: int | None, cu: list[int] | None) -> tuple[Intervals, Tensor | None]:
    torch.manual_seed(4)
    z = torch.randn(1, KV_HEADS, TOKENS)
    edges = None if cu is None else torch.tensor(cu, dtype=torch.int32)
    return intervals(z, window=WINDOW, budget=budget, sinks=1, cu_seqlens=edges), edges


@pytest.mark.parametrize(("budget", "cu"), CASES)
def test_sees_what_lives(budget: int | None, cu: list[int] | None) -> None:
    q, k, v = make()
    eviction, edges = lists(budget, cu)
    death = eviction.death[0].tolist()
    kept = [t - j >= WINDOW for g in death for j, t in enumerate(g)]
    assert any(kept)
    o, lse = op.attention_with_lse(q, k, v, window=WINDOW, intervals=eviction, cu_seqlens=edges)
    for t in range(TOKENS):
        start = max(edge for edge in cu or [0] if edge <= t)
        for head in range(HEADS):
            group = head * KV_HEADS // HEADS
            seen = [j for j in range(start, t + 1) if t < death[group][j]]
            scores = k[0, seen, group] @ q[0, t, head] * 6**-0.5
            torch.testing.assert_close(o[0, t, head], scores.softmax(0) @ v[0, seen, group])
            torch.testing.assert_close(lse[0, head, t], scores.logsumexp(0))


@pytest.mark.parametrize(("budget", "cu"), CASES)
def test_gradients(budget: int | None, cu: list[int] | None) -> None:
    eviction, edges = lists(budget, cu)

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        options = {"window": WINDOW, "intervals": eviction, "cu_seqlens": edges}
        return op.attention_with_lse(q, k, v, **options)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(run, make())


def test_scores_get_the_straight_through_gradient() -> None:
    q, k, v = make()
    eviction, _ = lists(2, None)
    score = torch.rand(1, KV_HEADS, TOKENS, requires_grad=True)
    o = op.attention(q, k, v, window=WINDOW, intervals=eviction, score=score)
    dv, dscore = torch.autograd.grad(o.square().sum(), (v, score))
    assert dscore.dtype == score.dtype
    torch.testing.assert_close(dscore.double(), (dv * v).sum(-1).transpose(1, 2))


def test_nobody_kept_is_a_window() -> None:
    q, k, v = make()
    refused = torch.full((1, KV_HEADS, TOKENS), -1.0)
    eviction = intervals(refused, window=WINDOW, budget=2)
    assert int(eviction.death.max()) < NEVER
    o = op.attention(q, k, v, window=WINDOW, intervals=eviction)
    torch.testing.assert_close(o, op.attention(q, k, v, window=WINDOW))


@pytest.mark.parametrize(("budget", "cu"), CASES)
def test_opcheck(budget: int | None, cu: list[int] | None) -> None:
    q, k, v = make(torch.float32)
    eviction, edges = lists(budget, cu)
    score = torch.rand(1, KV_HEADS, TOKENS, requires_grad=True)
    rule = Rule(window=WINDOW, scale=0.5)
    constants = (*Extras(score, None, None, edges, *eviction), *rule)
    torch.library.opcheck(torch.ops.mixerlang.attention, (q, k, v, *constants))
    o, lse = torch.ops.mixerlang.attention(q, k, v, *constants)
    given = (torch.randn_like(o), torch.randn_like(lse), o, lse, q, k, v, *constants)
    detached = tuple(x.detach() if isinstance(x, Tensor) else x for x in given)
    torch.library.opcheck(torch.ops.mixerlang.attention_backward, detached)


def test_refuses_what_no_list_describes() -> None:
    q, k, v = make()
    eviction, _ = lists(2, None)
    with pytest.raises(ValueError, match="need their window"):
        op.attention(q, k, v, intervals=eviction)
    with pytest.raises(ValueError, match="hold the sinks"):
        op.attention(q, k, v, window=WINDOW, sinks=1, intervals=eviction)
    with pytest.raises(ValueError, match=r"\(B, G, T\)"):
        op.attention(q[:, 1:], k[:, 1:], v[:, 1:], window=WINDOW, intervals=eviction)


@pytest.mark.parametrize("budget", [2, None])
@pytest.mark.parametrize("name", Intervals._fields)
def test_lists_of_other_shapes_are_refused(name: str, budget: int | None) -> None:
    """Kernels find their way in them by the shapes that they should have."""
    eviction, _ = lists(budget, None)
    q, k, v = make()
    whole = getattr(eviction, name)
    if whole is None:
        return
    strided = torch.stack([whole, whole], -1)[..., 0]
    for wrong in (whole[:, :1], whole.to(torch.int64), strided):
        options = {"window": WINDOW, "intervals": eviction._replace(**{name: wrong})}
        with pytest.raises(ValueError, match=f"intervals.{name} is "):
            op.attention(q, k, v, **options)
