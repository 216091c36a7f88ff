"""The attention kernels on a GPU: every shipped tile, awkward shapes, layouts, gradients.

Against float64 softmax attention by its whole score matrix. Outputs start as NaN, so that an
element that no program writes is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.attention import op

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


def dense(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, sinks: int, cu: list[int] | None
) -> tuple[Tensor, Tensor]:
    tokens, repeat = q.shape[1], q.shape[2] // k.shape[2]
    index = torch.arange(tokens, device=q.device)
    start = torch.zeros_like(index)
    for edge in cu or []:
        start = torch.where(index >= edge, edge, start)
    t, j = index[:, None], index[None, :]
    near = t - j < (tokens if window is None else window)
    seen = (j <= t) & (j >= start[:, None]) & (near | (j - start[:, None] < sinks))
    k, v = (x.repeat_interleave(repeat, dim=2) for x in (k, v))
    s = torch.einsum("bthd,bjhd->bhtj", q, k) * q.shape[-1] ** -0.5
    s = s.masked_fill(~seen, -torch.inf)
    return torch.einsum("bhtj,bjhd->bthd", s.softmax(-1), v), s.logsumexp(-1)


def compare(
    inputs: list[Tensor],
    window: int | None,
    sinks: int = 0,
    cu: list[int] | None = None,
    lse_grad: bool = False,
) -> None:
    """o, lse and the three gradients, each within the dtype's tolerance, and twice the same."""
    packed = None if cu is None else torch.tensor(cu, device="cuda", dtype=torch.int32)

    def run() -> tuple[Tensor, ...]:
        o, lse = op.attention_with_lse(*inputs, window=window, sinks=sinks, cu_seqlens=packed)
        torch.manual_seed(1)
        do, dlse = torch.randn_like(o), torch.randn_like(lse)
        outputs, grads = ((o, lse), (do, dlse)) if lse_grad else ((o,), (do,))
        return o, lse, *torch.autograd.grad(outputs, inputs, grads), do, dlse

    *found, do, dlse = run()
    wide = [x.detach().double().requires_grad_() for x in inputs]
    o, lse = dense(*wide, window, sinks, cu)
    outputs, grads = ((o, lse), (do, dlse)) if lse_grad else ((o,), (do,))
    grads = [grad.double() for grad in grads]
    expected = [o, lse, *torch.autograd.grad(outputs, wide, grads)]
    tolerance = TOLERANCE[inputs[0].dtype]
    for name, got, want in zip(("o", "lse", "dq", "dk", "dv"), found, expected, strict=True):
        # A single visible key has dq = dk = 0: measure against the size of what cancels there.
        scale = max(want.norm().item(), 0.1 * want.numel() ** 0.5)
        error = (got.double() - want).norm().item() / scale
        assert error < tolerance, f"{name}: {error:.1e}"
    for first, second in zip(found, run(), strict=False):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("window", [200, 600, None])
@pytest.mark.parametrize("dim", [16, 64, 80, 96, 100, 112, 128, 192, 256])
def test_shipped_tiles(dim: int, window: int | None, dtype: torch.dtype) -> None:
    for seed in range(3):
        compare(make(900, 2, 1, dim, dtype=dtype, seed=seed), window)


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("window", [128, 512, None])
def test_ones(dim: int, window: int | None) -> None:
    """Equal keys: each row is the mean of what it sees, whatever the order of its blocks."""
    inputs = [torch.ones_like(x).requires_grad_() for x in make(700, 2, 2, dim)]
    compare(inputs, window)


@pytest.mark.parametrize("tokens", [1, 2, 63, 64, 65, 130, 777])
@pytest.mark.parametrize("window", [1, 17, 64, 100_000, None])
def test_lengths_and_windows(tokens: int, window: int | None) -> None:
    compare(make(tokens, 3, 3, batch=2), window)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (3, 1), (6, 2), (5, 5)])
def test_head_groups(heads: int, kv_heads: int) -> None:
    compare(make(333, heads, kv_heads, batch=3), 100)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("dim", "value_dim"), [(64, 128), (128, 64), (100, 48), (32, 256)])
def test_values_of_another_dim(dim: int, value_dim: int, dtype: torch.dtype) -> None:
    compare(make(300, 2, 1, dim, value_dim, dtype=dtype), 90)


@pytest.mark.parametrize("sinks", [1, 4, 70])
@pytest.mark.parametrize("tokens", [50, 517])
@pytest.mark.parametrize("window", [1, 90])
def test_sinks(tokens: int, sinks: int, window: int) -> None:
    compare(make(tokens, 4, 2), window, sinks)


@pytest.mark.parametrize("cu", [[0, 1, 2, 66, 300], [0, 128, 256, 300], [0, 300], [0, 7, 7, 300]])
@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (60, 0), (60, 3), (None, 0)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_packed(cu: list[int], window: int | None, sinks: int, dtype: torch.dtype) -> None:
    compare(make(300, 2, 1, dtype=dtype), window, sinks, cu)


@pytest.mark.parametrize("dim", [64, 100])
def test_gradient_of_lse(dim: int) -> None:
    compare(make(257, 4, 2, dim), 70, lse_grad=True)


def test_strided_inputs() -> None:
    fused = torch.randn(2, 200, 4 * 3 * 64 + 64, device="cuda", dtype=torch.bfloat16)
    parts = fused[..., 32:-32].unflatten(-1, (3, 4, 64)).unbind(2)
    compare([x.requires_grad_() for x in parts], 50)
    heads_first = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in parts]
    compare([x.requires_grad_() for x in heads_first], 50)
    odd = torch.randn(3, 1, 150, 2, 67, device="cuda", dtype=torch.bfloat16)[..., 3:].unbind(0)
    assert odd[0].data_ptr() % 16 and odd[0].stride(2) % 16
    compare([x.detach().requires_grad_() for x in odd], 50)


def test_large_scores() -> None:
    """Scores in the thousands: no overflow, and the softmax picks its largest."""
    q, k, v = make(300, 2, 2)
    large = [(q.detach() * 40).requires_grad_(), (k.detach() * 40).requires_grad_(), v]
    o, lse = op.attention_with_lse(*large, window=100)
    expected, wanted = dense(*[x.detach().double() for x in large], 100, 0, None)
    assert ((o - expected).norm() / expected.norm()).item() < 1e-2
    assert ((lse - wanted).norm() / wanted.norm()).item() < 1e-5
    for grad in torch.autograd.grad(o.float().square().sum(), large):
        assert grad.isfinite().all()


def test_tf32_only_when_asked() -> None:
    q, k, v = make(400, 2, 2, dtype=torch.float32)
    exact, _ = dense(q.double(), k.double(), v.double(), 100, 0, None)
    full = op.attention(q, k, v, window=100)
    rounded = op.attention(q, k, v, window=100, tf32=True)
    errors = [((x.double() - exact).norm() / exact.norm()).item() for x in (full, rounded)]
    assert errors[0] < 1e-6 < errors[1] < 2e-3


def test_offsets_beyond_32_bits() -> None:
    tokens, tail, window = 1_100_000, 1000, 128
    assert tokens * 16 * 128 > 2**31
    torch.utils.deterministic.fill_uninitialized_memory = False
    shapes = [(16, 128), (2, 128), (2, 128)]
    inputs = [
        torch.randn(1, tokens, *shape, device="cuda", dtype=torch.bfloat16).requires_grad_()
        for shape in shapes
    ]
    o = op.attention(*inputs, window=window)
    do = torch.randn_like(o)
    grads = torch.autograd.grad(o, inputs, do)
    last = [x.detach()[:, -tail - window :].double().requires_grad_() for x in inputs]
    expected, _ = dense(*last, window, 0, None)
    slope = do[:, -tail - window :].double()
    slope[:, :window] = 0  # rows that see keys outside the slice
    wanted = torch.autograd.grad(expected, last, slope)
    pairs: list[tuple[Any, Any]] = [(o, expected), *zip(grads, wanted, strict=True)]
    for got, want in pairs:
        # Keys within a window of the slice's start are also seen by rows that were left out.
        got, want = got[:, -tail + window :].double(), want[:, -tail + window :]
        assert ((got - want).norm() / want.norm()).item() < 1e-2
