"""The attention op on the CPU: mathematics, gradients, and what torch asks of an op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mixerlang.kernels.attention import op, reference
from mixerlang.kernels.attention.call import Extras
from mixerlang.kernels.attention.variant import Rule

CASES = [
    # tokens, heads, KV heads, window, sinks, cu_seqlens
    (9, 2, 2, 4, 0, None),
    (9, 4, 2, 3, 2, None),
    (7, 2, 1, None, 0, None),
    (5, 1, 1, 100, 3, None),
    (1, 2, 2, 1, 0, None),
    (10, 2, 1, 3, 1, [0, 1, 6, 10]),
    (10, 2, 2, None, 0, [0, 4, 4, 10]),
]


def make(
    tokens: int, heads: int, kv_heads: int, batch: int = 1, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    torch.manual_seed(tokens * heads)
    shapes = [(heads, 6), (kv_heads, 6), (kv_heads, 5)]
    return [torch.randn(batch, tokens, *shape, dtype=dtype, requires_grad=True) for shape in shapes]


def packed(cu_seqlens: list[int] | None) -> Tensor | None:
    return None if cu_seqlens is None else torch.tensor(cu_seqlens, dtype=torch.int32)


@pytest.mark.parametrize(("tokens", "heads", "kv_heads", "window", "sinks", "cu"), CASES)
def test_sees_what_it_should(
    tokens: int, heads: int, kv_heads: int, window: int | None, sinks: int, cu: list[int] | None
) -> None:
    q, k, v = make(tokens, heads, kv_heads)
    o, lse = op.attention_with_lse(q, k, v, window=window, sinks=sinks, cu_seqlens=packed(cu))
    edges = cu or [0, tokens]
    for t in range(tokens):
        start = max(edge for edge in edges if edge <= t)
        near = range(start if window is None else max(start, t - window + 1), t + 1)
        far = range(start, min(start + (sinks if window else 0), t + 1))
        seen = sorted({*near, *far})
        for head in range(heads):
            scores = k[0, seen, head * kv_heads // heads] @ q[0, t, head] * 6**-0.5
            expected = scores.softmax(0) @ v[0, seen, head * kv_heads // heads]
            torch.testing.assert_close(o[0, t, head], expected)
            torch.testing.assert_close(lse[0, head, t], scores.logsumexp(0))


@pytest.mark.parametrize(("tokens", "heads", "kv_heads", "window", "sinks", "cu"), CASES)
def test_gradients(
    tokens: int, heads: int, kv_heads: int, window: int | None, sinks: int, cu: list[int] | None
) -> None:
    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return op.attention_with_lse(q, k, v, window=window, sinks=sinks, cu_seqlens=packed(cu))

    assert torch.autograd.gradcheck(run, make(tokens, heads, kv_heads))


def test_agrees_with_the_reference() -> None:
    q, k, v = make(12, 4, 2, batch=3)
    t = torch.arange(12)
    seen = reference.see_past(t[:, None], t) & reference.see_window(t[:, None], t, 5)
    rows = [x.transpose(1, 2) for x in (q, k, v)]
    expected = reference.attention(*rows, seen[None, None], scale=0.3).transpose(1, 2)
    torch.testing.assert_close(op.attention(q, k, v, window=5, scale=0.3), expected)


@pytest.mark.parametrize("layout", ["dense", "strided"])
@pytest.mark.parametrize("cu", [None, [0, 3, 8]])
def test_opcheck(layout: str, cu: list[int] | None) -> None:
    q, k, v = make(8, 2, 1, dtype=torch.float32)
    if layout == "strided":
        q, k, v = (
            x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
            for x in (q, k, v)
        )
    extras = Extras(cu_seqlens=packed(cu))
    constants = (*extras, *Rule(window=3, sinks=1, scale=0.5))
    torch.library.opcheck(torch.ops.mixerlang.attention, (q, k, v, *constants))
    o, lse = torch.ops.mixerlang.attention(q, k, v, *constants)
    rest = (torch.randn_like(o), torch.randn_like(lse), o, lse, q, k, v)
    rest = tuple(x.detach() for x in rest)
    torch.library.opcheck(torch.ops.mixerlang.attention_backward, (*rest, *constants))


def test_compiles_whole_forward_and_backward() -> None:
    q, k, v = make(8, 2, 1, dtype=torch.float32)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return op.attention(q * 2, k, v, window=3).square().sum()

    expected = torch.autograd.grad(run(q, k, v), (q, k, v))
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(q, k, v), (q, k, v)), expected)


@pytest.mark.parametrize(("window", "sinks"), [(4, 0), (4, 2), (None, 0), (50, 3), (1, 9)])
def test_flops_count_visible_pairs(window: int | None, sinks: int) -> None:
    tokens, heads = 13, 2
    q, k, v = make(tokens, heads, 1, dtype=torch.float32)
    t = torch.arange(tokens)[:, None]
    j = torch.arange(tokens)
    near = t - j < (tokens if window is None else window)
    pairs = int(((j <= t) & (near | (j < sinks))).sum())
    with FlopCounterMode(display=False) as forward:
        o = op.attention(q, k, v, window=window, sinks=sinks)
    assert forward.get_total_flops() == 2 * heads * pairs * (6 + 5)
    with FlopCounterMode(display=False) as backward:
        o.sum().backward()
    assert backward.get_total_flops() == 2 * heads * pairs * (3 * 6 + 2 * 5)


def test_packed_needs_one_row() -> None:
    q, k, v = make(4, 2, 2, batch=2)
    with pytest.raises(ValueError, match="one batch row"):
        op.attention(q, k, v, cu_seqlens=packed([0, 4]))


@pytest.mark.parametrize(
    ("q", "k", "v", "message"),
    [
        ((4, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8), "axes"),
        ((1, 4, 2, 8), (1, 3, 2, 8), (1, 3, 2, 8), "share B and T"),
        ((1, 4, 2, 8), (2, 4, 2, 8), (1, 4, 2, 8), "share B and T"),
        ((1, 0, 2, 8), (1, 0, 2, 8), (1, 0, 2, 8), "1 or more"),
        ((1, 4, 2, 8), (1, 4, 2, 7), (1, 4, 2, 8), "their channels"),
        ((1, 4, 2, 8), (1, 4, 2, 8), (1, 4, 1, 8), "their heads"),
        ((1, 4, 3, 8), (1, 4, 2, 8), (1, 4, 2, 8), "do not divide 3"),
    ],
)
def test_refuses_shapes_it_would_read_beyond(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        op.attention(torch.ones(q), torch.ones(k), torch.ones(v), window=2)


@pytest.mark.parametrize("edges", [[0, 3], [1, 4], [0, 3, 2, 4], [4]])
def test_refuses_edges_that_do_not_fit(edges: list[int]) -> None:
    q, k, v = make(4, 2, 2)
    with pytest.raises(ValueError, match="cu_seqlens"):
        op.attention(q, k, v, cu_seqlens=packed(edges))


@pytest.mark.parametrize(("window", "sinks"), [(0, 0), (4, -1)])
def test_refuses_windows_that_are_none(window: int, sinks: int) -> None:
    q, k, v = make(4, 2, 2)
    with pytest.raises(ValueError, match="nearest [01]"):
        op.attention(q, k, v, window=window, sinks=sinks)


@pytest.mark.parametrize("name", ["window", "sinks"])
def test_windows_beyond_32_bits(name: str) -> None:
    """In the kernels j + window would come round to below 0, and give no gradients."""
    x = torch.ones(1, 3, 1, 4)
    options = {"window": 2, name: 2**31 - 1}
    with pytest.raises(ValueError, match=f"{name} is {2**31 - 1}: nearest {2**30}"):
        op.attention(x, x, x, **options)
