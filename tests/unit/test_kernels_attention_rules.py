"""What attention sees and how scores become weights: the op's dense form, rule by rule."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels.attention import cost, op
from mixerlang.kernels.attention.call import Extras
from mixerlang.kernels.attention.intervals import NEVER, Intervals
from mixerlang.kernels.attention.variant import Rule

TOKENS, HEADS, KV_HEADS = 11, 4, 2
PACKED = [0, 1, 7, 7, 11]

REACHES: list[dict[str, int]] = [
    {"window": 6, "rate": 2},
    {"window": 5, "rate": 3, "sinks": 2},
    {"window": 1, "strided": 3},
    {"window": 2, "strided": 4, "sinks": 1},
    {"window": 6, "rate": 2, "strided": 3, "sinks": 2},
    {"window": 3, "strided": 1},
    {"window": 40, "rate": 5},
]


def make(dtype: torch.dtype = torch.float64, grad: bool = True) -> dict[str, Tensor]:
    torch.manual_seed(3)
    shapes = {"q": (1, TOKENS, HEADS, 6), "k": (1, TOKENS, KV_HEADS, 6)}
    shapes |= {"v": (1, TOKENS, KV_HEADS, 5), "sink_logits": (HEADS,)}
    return {
        name: torch.randn(shape, dtype=dtype, requires_grad=grad) for name, shape in shapes.items()
    }


def sees(t: int, j: int, start: int, window: int, **rule: int) -> bool:
    """Counted on the token axis: query t, key j, in a sequence that begins at start."""
    near = t - j < window and (t - j) % rule.get("rate", 1) == 0
    strided = rule.get("strided", 0)
    regular = strided > 0 and (t - j) % strided == 0
    return start <= j <= t and (near or j - start < rule.get("sinks", 0) or regular)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("edges", [None, PACKED])
def test_sees_what_the_rule_says(reach: dict[str, int], edges: list[int] | None) -> None:
    x = make(grad=False)
    cu = None if edges is None else torch.tensor(edges)
    options: dict[str, Any] = {**reach, "cu_seqlens": cu}
    o = op.attention(x["q"], x["k"], x["v"], **options)
    for t, head in itertools.product(range(TOKENS), range(HEADS)):
        start = max(edge for edge in edges or [0] if edge <= t)
        seen = [j for j in range(TOKENS) if sees(t, j, start, **reach)]
        scores = x["k"][0, seen, head // 2] @ x["q"][0, t, head] * 6**-0.5
        expected = scores.softmax(0) @ x["v"][0, seen, head // 2]
        torch.testing.assert_close(o[0, t, head], expected)


def test_softmax_rules() -> None:
    """Capped, then lowered by distance, then beside one more logit."""
    x = make(grad=False)
    slopes = torch.tensor([0.5, 0.25, 0.0, 1.0])
    options: dict[str, Any] = {"window": 4, "scale": 1.5, "softcap": 2.0, "slopes": slopes}
    o, lse = op.attention_with_lse(x["q"], x["k"], x["v"], sink_logits=x["sink_logits"], **options)
    for t, head in itertools.product(range(TOKENS), range(HEADS)):
        seen = list(range(max(0, t - 3), t + 1))
        scores = 1.5 * x["k"][0, seen, head // 2] @ x["q"][0, t, head]
        scores = 2 * torch.tanh(scores / 2) - slopes[head] * (t - torch.tensor(seen))
        scores = torch.cat([scores, x["sink_logits"][head, None]])
        expected = scores.softmax(0)[:-1] @ x["v"][0, seen, head // 2]
        torch.testing.assert_close(o[0, t, head], expected)
        torch.testing.assert_close(lse[0, head, t], scores.logsumexp(0))


@pytest.mark.parametrize("reach", REACHES[:5])
@pytest.mark.parametrize("edges", [None, PACKED])
def test_gradients(reach: dict[str, int], edges: list[int] | None) -> None:
    x = make()
    cu = None if edges is None else torch.tensor(edges)
    rest: dict[str, Any] = {**reach, "cu_seqlens": cu, "softcap": 1.5}
    slopes = torch.linspace(0, 1, HEADS)

    def run(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
        return op.attention_with_lse(q, k, v, sink_logits=sinks, slopes=slopes, **rest)

    assert torch.autograd.gradcheck(run, list(x.values()))


def intervals(edges: list[int] | None = None) -> tuple[Intervals, int]:
    """Random deaths outside a window of 3, for each KV head."""
    torch.manual_seed(5)
    birth = torch.arange(TOKENS, dtype=torch.int32)
    later = torch.randint(0, 8, (1, KV_HEADS, TOKENS), dtype=torch.int32)
    death = torch.where(later > 5, NEVER, birth + 3 + later)
    none = torch.zeros(1, KV_HEADS, 2, dtype=torch.int32)
    return Intervals(death, birth.expand_as(death).contiguous(), none, None, None), 3


@pytest.mark.parametrize("edges", [None, PACKED])
def test_intervals(edges: list[int] | None) -> None:
    x = make(grad=False)
    alive, window = intervals()
    cu = None if edges is None else torch.tensor(edges)
    o = op.attention(
        x["q"], x["k"], x["v"], window=window, intervals=alive, cu_seqlens=cu, scale=0.7
    )
    for t, head in itertools.product(range(TOKENS), range(HEADS)):
        start = max(edge for edge in edges or [0] if edge <= t)
        seen = [j for j in range(start, t + 1) if t < alive.death[0, head // 2, j]]
        scores = 0.7 * x["k"][0, seen, head // 2] @ x["q"][0, t, head]
        expected = scores.softmax(0) @ x["v"][0, seen, head // 2]
        torch.testing.assert_close(o[0, t, head], expected)


def test_the_score_gets_a_straight_through_gradient() -> None:
    x = make()
    alive, window = intervals()
    score = torch.rand(1, KV_HEADS, TOKENS, dtype=torch.float32, requires_grad=True)
    o = op.attention(x["q"], x["k"], x["v"], window=window, intervals=alive, score=score)
    dv, dscore = torch.autograd.grad(o.square().sum(), (x["v"], score))
    assert dscore.dtype == torch.float32
    expected = (dv * x["v"]).sum(-1).transpose(1, 2).float()
    torch.testing.assert_close(dscore, expected)


@pytest.mark.parametrize("full", [False, True])
def test_opcheck(full: bool) -> None:
    x = make(torch.float32)
    alive, window = intervals()
    cu = torch.tensor(PACKED)
    extras = Extras(None, x["sink_logits"], torch.rand(HEADS), cu)
    rule = Rule(5, 1, 2, 3, 0.4, 1.5)
    if full:
        score = torch.rand(1, KV_HEADS, TOKENS, requires_grad=True)
        extras = Extras(score, x["sink_logits"], torch.rand(HEADS), cu, *alive)
        rule = Rule(window, scale=0.4, softcap=1.5)
    inputs = (x["q"], x["k"], x["v"], *extras, *rule)
    torch.library.opcheck(torch.ops.mixerlang.attention, inputs)
    o, lse = torch.ops.mixerlang.attention(*inputs)
    rest = [y.detach() if isinstance(y, Tensor) else y for y in (o, lse, *inputs)]
    grads = (torch.randn_like(o).detach(), torch.randn_like(lse).detach())
    torch.library.opcheck(torch.ops.mixerlang.attention_backward, (*grads, *rest))


def test_every_gradient_survives_compilation() -> None:
    x = make(torch.float32)

    def run() -> Tensor:
        o = op.attention(x["q"] * 2, x["k"], x["v"], window=4, sink_logits=x["sink_logits"])
        return o.square().sum()

    inputs = list(x.values())
    expected = torch.autograd.grad(run(), inputs)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(), inputs), expected)


@pytest.mark.parametrize("tokens", [1, 5, 12, 37])
def test_visible_pairs_are_counted(tokens: int) -> None:
    for window, sinks, rate, strided in itertools.product(
        [1, 4, 9, 50], [0, 3], [1, 2, 5], [0, 1, 3, 4]
    ):
        rule = {"sinks": sinks, "rate": rate, "strided": strided}
        pairs = itertools.product(range(tokens), repeat=2)
        expected = sum(sees(t, j, 0, window, **rule) for t, j in pairs)
        assert cost.visible_pairs(tokens, Rule(window, **rule)) == expected


@pytest.mark.parametrize("tokens", [2, 9, 30])
def test_kept_pairs_are_bounded(tokens: int) -> None:
    for window, budget in itertools.product([1, 4, 40], [1, 3, 100, None]):
        slots = tokens if budget is None else budget
        expected = sum(
            min(t + 1, window) + min(max(t + 1 - window, 0), slots) for t in range(tokens)
        )
        assert cost.kept_pairs(tokens, window, budget) == expected


def test_flops_of_intervals() -> None:
    x = make()
    alive, window = intervals()
    with FlopCounterMode(display=False) as counter:
        op.attention(x["q"], x["k"], x["v"], window=window, intervals=alive)
    pairs = TOKENS * (TOKENS + 1) // 2
    assert counter.get_total_flops() == 2 * HEADS * pairs * (6 + 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 2}, "without a window"),
        ({"window": 3, "rate": 0}, "rate is 0: nearest 1"),
        ({"window": 3, "strided": -1}, "strided is -1: nearest 0"),
        ({"softcap": 0.0}, "softcap is 0.0: it must be positive"),
        ({"scale": float("nan")}, "scale is nan: it must be positive"),
        ({"sink_logits": torch.zeros(3)}, "sink_logits holds one number for each of 4 heads"),
        ({"slopes": torch.zeros(4, 1)}, "slopes holds one number for each of 4 heads"),
        ({"score": torch.zeros(1, 4, TOKENS)}, "score is"),
        ({"slopes": torch.zeros(4, device="meta")}, "one device"),
        ({"intervals": intervals()[0]}, "intervals need their window"),
        ({"intervals": intervals()[0], "window": 3, "sinks": 1}, "intervals need their window"),
        ({"intervals": intervals()[0]._replace(death=torch.zeros(1, 1, 1)), "window": 3}, "death"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    x = make()
    with pytest.raises(ValueError, match=message):
        op.attention(x["q"], x["k"], x["v"], **options)


def test_dense_attention_has_a_largest_size() -> None:
    q = torch.zeros(1, 2**15 + 1, 1, 1)
    with pytest.raises(ValueError, match="whole score matrix.*use float32.*on a CUDA device"):
        op.attention(q, q, q, window=4)


def test_dtypes_agree_and_are_floating() -> None:
    q = torch.zeros(1, 4, 1, 2)
    with pytest.raises(ValueError, match="differ in dtype"):
        op.attention(q, q.double(), q)
    with pytest.raises(ValueError, match="floating-point"):
        op.attention(q.long(), q.long(), q.long())


def test_a_second_derivative_is_refused() -> None:
    x = make()
    o = op.attention(x["q"], x["k"], x["v"], window=3)
    (dq,) = torch.autograd.grad(o.sum(), x["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="attention_backward has no gradient"):
        dq.sum().backward()
