"""Feature maps and rotary positions have the properties they are chosen for."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from mixerlang.nn.features import Compose, Hedgehog, L2Norm, Silu, Softmax, Taylor
from mixerlang.nn.position import apply_rope


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 6, dtype=torch.float64)


def test_taylor_is_the_expansion_of_exp(x):
    s = (x * x.sin()).sum(-1) / sqrt(6)
    for degree, expected in ((1, 1 + s), (2, 1 + s + s**2 / 2)):
        taylor = Taylor(degree)
        assert taylor.apply(x).shape[-1] == taylor.width(6)
        torch.testing.assert_close((taylor.apply(x) * taylor.apply(x.sin())).sum(-1), expected)


def test_hedgehog_is_a_softmax_of_both_signs(x):
    layer = Hedgehog().build(4, 6).double()
    torch.testing.assert_close(layer(x), torch.cat([x, -x], dim=-1).softmax(-1))
    with torch.no_grad():
        layer.weight[1] *= 2
    doubled = torch.cat([2 * x, -2 * x], dim=-1).softmax(-1)
    torch.testing.assert_close(layer(x)[:, :, 1], doubled[:, :, 1])
    torch.testing.assert_close(layer(x)[:, :, 0], torch.cat([x, -x], dim=-1).softmax(-1)[:, :, 0])


def test_compositions_go_from_left_to_right(x):
    unit = Compose((Silu(), L2Norm())).build(4, 6)(x)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones_like(unit[..., 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(unit, L2Norm().apply(Silu().apply(x)))
    wide = Compose((Hedgehog(), Softmax())).build(4, 6).double()(x)
    torch.testing.assert_close(wide, torch.cat([x, -x], dim=-1).softmax(-1).softmax(-1))


def test_rope_depends_on_distance_alone(x):
    q = apply_rope(x, torch.arange(4).expand(2, 4), 10_000.0)
    k = apply_rope(x.cos(), torch.arange(4).expand(2, 4), 10_000.0)
    far_q = apply_rope(x, torch.arange(4).expand(2, 4) + 1000, 10_000.0)
    far_k = apply_rope(x.cos(), torch.arange(4).expand(2, 4) + 1000, 10_000.0)
    torch.testing.assert_close(q @ k.mT, far_q @ far_k.mT)
    assert not torch.allclose(q @ k.mT, x @ x.cos().mT)


def test_rope_turns_halves_by_position_times_frequency():
    x = torch.zeros(1, 1, 1, 5, dtype=torch.float64)
    x[..., 1] = 1.0
    y = apply_rope(x, torch.tensor([[3]]), 100.0)
    angle = torch.tensor(3 * 100**-0.5, dtype=torch.float64)
    torch.testing.assert_close(y[0, 0, 0, 1::2], torch.stack([angle.cos(), angle.sin()]))
    assert torch.equal(apply_rope(x, torch.tensor([[3]]), 100.0, 0.3), x)


def test_rope_keeps_the_rest_and_the_dtype():
    x = torch.randn(2, 3, 4, 6).bfloat16()
    y = apply_rope(x, torch.arange(4).expand(2, 4), 10_000.0, fraction=0.7)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y[..., 4:], x[..., 4:])
    assert not torch.equal(y[..., :4], x[..., :4])
