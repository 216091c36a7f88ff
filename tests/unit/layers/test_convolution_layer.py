"""The causal convolution, alone and with a tail from call to call."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mixerlang.kernels.convolution import reference
from mixerlang.nn import backend
from mixerlang.nn.convolution import Convolution
from mixerlang.primitives.base import Workload
from mixerlang.primitives.convolution import Convolution as Term


def test_each_output_is_a_sum_over_the_last_inputs():
    torch.manual_seed(0)
    x, weight, tail = torch.randn(2, 5, 3), torch.randn(3, 4), torch.randn(2, 3, 3)
    bias = torch.randn(3)
    counts = torch.tensor([5, 2])
    y, new_tail = reference.convolution(x, weight, bias, tail, counts)
    seen = torch.cat([tail, x], dim=1)
    for t in range(5):
        expected = (seen[:, t : t + 4] * weight.T).sum(1) + bias
        torch.testing.assert_close(y[:, t], expected)
    assert torch.equal(new_tail[0], x[0, 2:])
    assert torch.equal(new_tail[1], torch.cat([tail[1, 2:], x[1, :2]]))


@pytest.mark.parametrize("kernel", [1, 4, 9])
@torch.no_grad()
def test_forward_prefill_steps_and_packed_agree(kernel, Caller):
    torch.manual_seed(0)
    layer = Convolution(6, kernel=kernel, activation="silu", bias=True)
    x = torch.randn(2, 12, 6)
    full = Caller(layer)(x)
    first = x[:, 0] * layer.conv.weight[:, -1] + layer.conv.bias
    torch.testing.assert_close(full[:, 0], F.silu(first))
    for sizes in ([5, 1, 6], [1] * 12):
        cached = Caller(layer)
        cached.start(x)
        parts = torch.cat([cached(part) for part in x.split(sizes, dim=1)], dim=1)
        torch.testing.assert_close(parts, full)
    packed = Caller(layer)(torch.cat([x[:1, :2], x[1:]], dim=1), [0, 2, 14])
    torch.testing.assert_close(packed, torch.cat([full[:1, :2], full[1:]], dim=1))
    held = cached.cache.states[""]["tail"].nbytes
    assert held == Term(kernel=kernel).cache_bytes(6, Workload(2, 12, bytes_per_element=4))


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("kernel", [1, 4, 9])
@torch.no_grad()
def test_the_same_through_kernels(kernel, activation, Caller):
    torch.manual_seed(0)
    layer = Convolution(6, kernel=kernel, activation=activation, bias=True).double()
    x = torch.randn(2, 12, 6, dtype=torch.float64)
    full = Caller(layer)(x)
    packed = torch.cat([x[:1, :2], x[1:]], dim=1)
    with backend.forced("kernels"):
        cached = Caller(layer)
        cached.start(x)
        parts = torch.cat([cached(part) for part in x.split([5, 1, 6], dim=1)], dim=1)
        apart = Caller(layer)(packed, [0, 2, 14])
    torch.testing.assert_close(parts, full)
    torch.testing.assert_close(apart, torch.cat([full[:1, :2], full[1:]], dim=1))


@torch.no_grad()
def test_causality(Caller):
    torch.manual_seed(0)
    layer = Convolution(3, kernel=4)
    x = torch.randn(1, 10, 3)
    y = Caller(layer)(x)
    x[:, 7:] = 0
    torch.testing.assert_close(Caller(layer)(x)[:, :7], y[:, :7])
