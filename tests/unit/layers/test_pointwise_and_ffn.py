"""Token-wise layers give what their formulas say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mixerlang.nn.ffn import Mlp, SwiGLU
from mixerlang.nn.pointwise import Dropout, Gate, GatedSum, Linear, Scale, WeightedSum


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4)


def test_swiglu(x):
    ffn = SwiGLU(4, hidden=6)
    gate, up, down = (getattr(ffn, f"{name}_proj").weight for name in ("gate", "up", "down"))
    torch.testing.assert_close(ffn(x), (F.silu(x @ gate.T) * (x @ up.T)) @ down.T)


@pytest.mark.parametrize(
    ("name", "function"),
    [("gelu", F.gelu), ("relu2", lambda x: x.clamp(min=0) ** 2), ("silu", F.silu)],
)
def test_mlp(x, name, function):
    ffn = Mlp(4, hidden=6, activation=name, bias=True)
    up, down = ffn.up_proj, ffn.down_proj
    expected = function(x @ up.weight.T + up.bias) @ down.weight.T + down.bias
    torch.testing.assert_close(ffn(x), expected)


def test_linear_is_a_linear_map_that_the_model_initialises(x):
    layer = Linear(4, out=5)
    assert isinstance(layer, torch.nn.Linear)
    assert layer(x).shape == (2, 3, 5)


def test_gate(x):
    gate = Gate(4)
    torch.testing.assert_close(gate(x), x * torch.sigmoid(x @ gate.proj.weight.T))


def test_scale(x):
    torch.testing.assert_close(Scale(4, init=0.5)(x), 0.5 * x)


def test_dropout_acts_in_training_alone(x):
    dropout = Dropout(4, p=0.5)
    assert (dropout(x) == 0).any()
    assert torch.equal(dropout.eval()(x), x)


def test_weighted_sum(x):
    mixed = WeightedSum(4, init=(0.5, 2.0))
    torch.testing.assert_close(mixed(x, x.square()), 0.5 * x + 2 * x.square())
    assert mixed.weight.requires_grad


def test_gated_sum(x):
    mixed = GatedSum(4, streams=2)
    first, second = mixed.proj.weight.chunk(2)
    expected = x.sin() * torch.sigmoid(x @ first.T) + x.cos() * torch.sigmoid(x @ second.T)
    torch.testing.assert_close(mixed(x.sin(), x.cos(), x), expected)
