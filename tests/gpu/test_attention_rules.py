"""The attention kernels' softmax rules and reaches on a GPU: forward and every gradient.

Against the dense form in float64, which the unit tests hold against its words. Outputs start as
NaN, so that an element that no program writes is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.attention import op
from mixerlang.kernels.attention.intervals import SEGMENT, Intervals
from mixerlang.kernels.attention.reference import alibi_slopes
from mixerlang.kernels.eviction import reference

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 5e-6}
EDGES = [0, 1, 66, 130, 130, 517]
EVERYTHING: dict[str, Any] = {
    "window": 150,
    "sinks": 5,
    "rate": 3,
    "strided": 32,
    "softcap": 2.0,
    "sink_logits": True,
    "slopes": True,
}


def compare(
    rules: dict[str, Any],
    tokens: int = 517,
    heads: int = 4,
    kv_heads: int = 2,
    dim: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    batch: int = 1,
    edges: list[int] | None = None,
    seed: int = 0,
) -> None:
    """o, lse and every gradient, each within the dtype's tolerance, and twice the same."""
    torch.manual_seed(seed)
    shapes = [(batch, tokens, count, dim) for count in (heads, kv_heads, kv_heads)]
    inputs = [torch.randn(shape, device="cuda").to(dtype).requires_grad_() for shape in shapes]
    options = dict(rules)
    if options.pop("slopes", False):
        options["slopes"] = alibi_slopes(heads).cuda()
    if options.pop("sink_logits", False):
        inputs.append(torch.randn(heads, device="cuda").to(dtype).requires_grad_())
    if edges is not None:
        options["cu_seqlens"] = torch.tensor(edges, device="cuda", dtype=torch.int32)
    do = torch.randn(batch, tokens, heads, dim, device="cuda").to(dtype)
    dlse = torch.randn(batch, heads, tokens, device="cuda")

    def run(inputs: list[Tensor]) -> list[Tensor]:
        beside = {"sink_logits": inputs[3]} if len(inputs) > 3 else {}
        o, lse = op.attention_with_lse(*inputs[:3], **beside, **options)
        slope = (do.to(o.dtype), dlse.to(lse.dtype))
        return [o, lse, *torch.autograd.grad((o, lse), inputs, slope)]

    found = run(inputs)
    expected = run([x.detach().double().requires_grad_() for x in inputs])
    names = ("o", "lse", "dq", "dk", "dv", "dsinks")
    for name, got, want in zip(names, found, expected, strict=False):
        size = want
        if name == "dsinks":
            size = uncancelled(inputs[3].detach(), *expected[:2], do, dlse)
        scale = max(size.norm().item(), 0.1 * want.numel() ** 0.5)
        error = (got.double() - want).norm().item() / scale
        assert error < TOLERANCE[dtype], f"{name}: {error:.1e}"
    for first, second in zip(found, run(inputs), strict=True):
        assert torch.equal(first, second)


def uncancelled(sinks: Tensor, o: Tensor, lse: Tensor, do: Tensor, dlse: Tensor) -> Tensor:
    """How large the gradient of sink logits (H,) would be, were its terms of random signs.

    It is the sum over t of exp(sink - lse[t]) * (dlse[t] - <o[t], do[t]>): per head one number, of
    T * E terms, that comes out ten times smaller than this where they happen to cancel. Roundings
    of o are independent, so that they add up as the terms' squares do, and do not cancel with them:
    the error is measured against that.
    """
    share = torch.exp(sinks.double()[:, None] - lse)
    terms = share.mT[..., None] * o * do.double()
    return (terms.square().sum((0, 1, 3)) + (share * dlse.double()).square().sum((0, 2))).sqrt()


@pytest.mark.parametrize(
    ("dim", "dtype"),
    [
        *((dim, torch.bfloat16) for dim in (64, 100, 128, 256)),
        (64, torch.float16),
        *((dim, torch.float32) for dim in (64, 128)),
    ],
)
def test_all_rules_together(dim: int, dtype: torch.dtype) -> None:
    for seed in range(3):
        compare(EVERYTHING, dim=dim, dtype=dtype, seed=seed)


@pytest.mark.parametrize("edges", [EDGES, [0, 517]])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_all_rules_packed(edges: list[int], dtype: torch.dtype) -> None:
    compare(EVERYTHING, dtype=dtype, edges=edges)


@pytest.mark.parametrize(("window", "dim"), [(100, 64), (None, 128)])
@pytest.mark.parametrize("rule", ["softcap", "sink_logits", "slopes"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_softmax_rules(rule: str, window: int | None, dim: int, dtype: torch.dtype) -> None:
    compare({"window": window, rule: EVERYTHING[rule]}, dim=dim, dtype=dtype, batch=2)


@pytest.mark.parametrize("tokens", [1, 7, 64, 129, 300])
@pytest.mark.parametrize(
    "reach",
    [
        {"window": 200, "rate": 4},
        {"window": 1, "strided": 16},
        {"window": 90, "strided": 64},
        {"window": 65, "rate": 2, "sinks": 3},
        {"window": 65, "strided": 7, "sinks": 80},
    ],
)
def test_reaches(reach: dict[str, int], tokens: int) -> None:
    compare(reach, tokens=tokens, batch=2)
    compare(reach, tokens=tokens, edges=[0, tokens // 3, tokens])


@pytest.mark.parametrize("edges", [None, [0, 5, 1030, 1030, 1031, 3000]])
@pytest.mark.parametrize("reach", [{"sinks": 4}, {"sinks": 70}, {"sinks": 5, "rate": 3}])
def test_sinks_of_many_queries(reach: dict[str, int], edges: list[int] | None) -> None:
    """More queries than one run of the pass by sink takes."""
    compare({"window": 100, **reach}, tokens=3000, batch=1 if edges else 2, edges=edges)


@pytest.mark.parametrize("edges", [None, [0, 700, 1000]])
@pytest.mark.parametrize("budget", [80, None])
def test_softmax_rules_over_intervals(budget: int | None, edges: list[int] | None) -> None:
    torch.manual_seed(2)
    z = torch.randn(1, 2, 1000, device="cuda")
    cu = None if edges is None else torch.tensor(edges, device="cuda")
    lists = reference.intervals(z, 150, budget, 3, 0.0, cu, segment=SEGMENT)
    intervals = Intervals(*(x if x is None else x.contiguous() for x in lists))
    rules = {"window": 150, "intervals": intervals, "softcap": 2.0}
    for dtype in (torch.bfloat16, torch.float32)[: 1 if edges else 2]:
        rest = {"sink_logits": True, "slopes": True}
        compare({**rules, **rest}, tokens=1000, dtype=dtype, edges=edges)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 1), (3, 3)])
def test_head_groups(heads: int, kv_heads: int) -> None:
    compare(EVERYTHING, heads=heads, kv_heads=kv_heads, batch=2)


def test_a_sink_that_is_nothing() -> None:
    """A logit of -inf changes nothing, and gets no gradient."""
    q, k, v = (torch.randn(1, 200, 2, 64, device="cuda") for _ in range(3))
    sinks = torch.full((2,), -torch.inf, device="cuda", requires_grad=True)
    o = op.attention(q, k, v, window=50, sink_logits=sinks)
    assert torch.equal(o, op.attention(q, k, v, window=50))
    assert torch.autograd.grad(o.sum(), sinks)[0].tolist() == [0, 0]


def test_per_head_numbers_may_be_strided() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 100, 2, 64, device="cuda") for _ in range(3))
    numbers = torch.rand(2, 3, device="cuda")
    found = op.attention(q, k, v, slopes=numbers[:, 0], sink_logits=numbers[:, 1])
    expected = op.attention(
        q, k, v, slopes=numbers[:, 0].clone(), sink_logits=numbers[:, 1].clone()
    )
    assert torch.equal(found, expected)


def test_strong_caps_and_slopes_stay_finite() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 700, 2, 64, device="cuda", requires_grad=True) for _ in range(3))
    slopes = torch.tensor([40.0, 0.0], device="cuda")
    o = op.attention(q * 1e3, k, v, softcap=0.01, slopes=slopes)
    assert o.isfinite().all()
    torch.testing.assert_close(o[:, :, 0], v[:, :, 0], atol=1e-5, rtol=1e-5)  # itself alone
    for grad in torch.autograd.grad(o.square().sum(), (q, k, v)):
        assert grad.isfinite().all()


def test_double_goes_by_the_score_matrix() -> None:
    q, k, v = (torch.randn(1, 50, 2, 300, device="cuda", dtype=torch.float64) for _ in range(3))
    seen = torch.ones(50, 50, device="cuda", dtype=torch.bool).tril()
    s = torch.einsum("bthd,bjhd->bhtj", q, k) * 300**-0.5
    expected = s.masked_fill(~seen, -torch.inf).softmax(-1)
    expected = torch.einsum("bhtj,bjhd->bthd", expected, v)
    torch.testing.assert_close(op.attention(q, k, v), expected)


def test_wide_heads_are_refused() -> None:
    q = torch.randn(1, 5, 2, 300, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="heads of 300 channels.*cut the heads"):
        op.attention(q, q, q, window=2)
