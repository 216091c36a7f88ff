"""Every named recurrence of the prelude against its paper: token by token, head by head."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mixerlang.nn.mixer import Context
from mixerlang.nn.sequences import Sequences
from mixerlang.runtime.load import load

DIM, TOKENS = 12, 70
SPEC = """
model m {{ vocab = 9; dim = 12; context = 96; init = normal(std=0.4); ffn = mlp(hidden=4)
layers = [layer({mixer}, ffn=none, norm=none)] }}
"""


def conv(layer, x):
    """y_t = sum_i w_i x_(t - kernel + 1 + i)."""
    kernel = layer.weight.shape[1]
    padded = F.pad(x, (0, 0, kernel - 1, 0))
    return sum(layer.weight[:, i] * padded[i : i + len(x)] for i in range(kernel))


def rope(x):
    """x (T, heads, D), halves turned against each other."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-torch.arange(half).double() / half)
    angle = torch.arange(len(x)).double()[:, None, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
    return torch.cat(turned, -1)


def unit(x):
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def rms(layer, x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.o_norm.weight


def heads(x, count):
    return x.unflatten(-1, (count, -1))


def scan(q, k, v, decay, b=None, delta=False):
    """S_t^T q_t for q, k, v (T, heads, D), decay (T, heads, 1 or D), b (T, heads)."""
    out = torch.zeros_like(v)
    for h in range(v.shape[1]):
        S = torch.zeros(k.shape[-1], v.shape[-1], dtype=v.dtype)
        for t in range(len(v)):
            S = decay[t, h][:, None] * S
            write = v[t, h] - S.T @ k[t, h] if delta else v[t, h]
            S = S + (1 if b is None else b[t, h]) * torch.outer(k[t, h], write)
            out[t, h] = S.T @ q[t, h]
    return out


def weighted_mean(similarity, v):
    """sum_j s_tj v_j / sum_j s_tj over j <= t; similarity (heads, T, T)."""
    weights = similarity.tril()
    return torch.einsum("hts,shd->thd", weights / weights.sum(-1, keepdim=True), v)


def constant(values, tokens):
    return torch.tensor(values, dtype=torch.float64).expand(tokens, -1)[..., None]


def linear_attention(m, x, n):
    q, k, v = (heads(p(x), n) for p in (m.q_proj, m.k_proj, m.v_proj))
    return weighted_mean(torch.einsum("thd,shd->hts", F.elu(q) + 1, F.elu(k) + 1), v)


def based(m, x, n):
    q, k, v = (heads(p(x), n) for p in (m.q_proj, m.k_proj, m.v_proj))
    s = torch.einsum("thd,shd->hts", q, k) / math.sqrt(q.shape[-1])
    return weighted_mean(1 + s + s**2 / 2, v)


def hedgehog(m, x, n):
    def feature(layer, y):
        turned = torch.einsum("thi,hoi->tho", y, layer.weight)
        return torch.cat([turned, -turned], -1).softmax(-1)

    q, k, v = (heads(p(x), n) for p in (m.q_proj, m.k_proj, m.v_proj))
    q, k = feature(m.q_map, q), feature(m.k_map, k)
    return weighted_mean(torch.einsum("thd,shd->hts", q, k), v)


def retnet(m, x, n):
    q, k, v = (heads(p(x), n) for p in (m.q_proj, m.k_proj, m.v_proj))
    decay = constant([1 - 2.0 ** (-5 - h) for h in range(n)], len(x))
    o = scan(rope(q), rope(k) * k.shape[-1] ** -0.5, v, decay)
    return rms(m, o) * F.silu(heads(m.g_proj(x), n))


def lightning(m, x, n):
    q, k, v = (F.silu(heads(p(x), n)) for p in (m.q_proj, m.k_proj, m.v_proj))
    decay = constant([math.exp(-(2.0 ** (-8 * (h + 1) / n))) for h in range(n)], len(x))
    o = scan(q * q.shape[-1] ** -0.5, k, v, decay)
    return rms(m, o) * torch.sigmoid(heads(m.g_proj(x), n))


def gla(m, x, n):
    q, k, v = (heads(p(x), n) for p in (m.q_proj, m.k_proj, m.v_proj))
    decay = torch.sigmoid(heads(m.decay.a_proj(x), n)) ** (1 / 16)
    o = scan(q * q.shape[-1] ** -0.5, k, v, decay)
    return rms(m, o) * F.silu(heads(m.g_proj(x), n))


def hgrn2(m, x, n):
    q, v = F.silu(heads(m.q_proj(x), n)), heads(m.v_proj(x), n)
    decay = torch.sigmoid(heads(m.decay.a_proj(x), n))
    return rms(m, scan(q * q.shape[-1] ** -0.5, 1 - decay, v, decay))


def mamba2(m, x, n):
    """C, B, x and dt of the paper are q, k, v and b; one group of q and k for all heads."""
    q = F.silu(conv(m.q_conv, m.q_proj(x)))[:, None].expand(-1, n, -1)
    k = F.silu(conv(m.k_conv, m.k_proj(x)))[:, None].expand(-1, n, -1)
    v = F.silu(heads(conv(m.v_conv, m.v_proj(x)), n))
    dt = F.softplus(m.decay.a_proj(x) + m.decay.dt_bias)
    decay = torch.exp(-m.decay.A_log.exp() * dt)[..., None]
    o = scan(q, k, v, decay, dt) + m.D[:, None] * v
    return rms(m, o) * F.silu(heads(m.g_proj(x), n))


def delta_rule(m, x, n, decay):
    q = unit(F.silu(heads(conv(m.q_conv, m.q_proj(x)), n)))
    k = unit(F.silu(heads(conv(m.k_conv, m.k_proj(x)), n)))
    v = F.silu(heads(conv(m.v_conv, m.v_proj(x)), n))
    b = torch.sigmoid(m.b_proj(x))
    return rms(m, scan(q * q.shape[-1] ** -0.5, k, v, decay, b, delta=True))


def deltanet(m, x, n):
    return delta_rule(m, x, n, constant([1.0] * n, len(x)))


def gated_deltanet(m, x, n):
    step = F.softplus(m.decay.a_proj(x) + m.decay.dt_bias)
    decay = torch.exp(-m.decay.A_log.exp() * step)[..., None]
    return delta_rule(m, x, n, decay) * F.silu(heads(m.g_proj(x), n))


def kda(m, x, n):
    step = heads(F.softplus(m.decay.a_proj(x) + m.decay.dt_bias), n)
    decay = torch.exp(-m.decay.A_log.exp()[:, None] * step)
    return delta_rule(m, x, n, decay) * torch.sigmoid(heads(m.g_proj(x), n))


@pytest.mark.parametrize(
    ("mixer", "formula", "count"),
    [
        ("linear_attention(2, head_dim=6)", linear_attention, 2),
        ("based(2, head_dim=5, feature_dim=4)", based, 2),
        ("hedgehog(3, head_dim=4)", hedgehog, 3),
        ("retnet(3, head_dim=4)", retnet, 3),
        ("lightning(3, head_dim=4)", lightning, 3),
        ("gla(2, key_dim=4, value_dim=6, rank=3)", gla, 2),
        ("hgrn2(2, head_dim=6)", hgrn2, 2),
        ("mamba2(4, head_dim=3, state=5)", mamba2, 4),
        ("deltanet(2, head_dim=5)", deltanet, 2),
        ("gated_deltanet(2, head_dim=5)", gated_deltanet, 2),
        ("kda(2, head_dim=5)", kda, 2),
    ],
)
@torch.no_grad()
def test_as_published(mixer, formula, count, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    (tmp_path / "m.mix").write_text(SPEC.format(mixer=mixer))
    layer = load(tmp_path / "m.mix", seed=0, dtype=torch.float64).layers[0].mixer
    torch.manual_seed(0)
    for parameter in layer.parameters():  # norms, biases and maps start too plainly to tell
        parameter.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(1, TOKENS, DIM, dtype=torch.float64)
    wanted = layer.o_proj(formula(layer, x[0], count).flatten(-2))
    torch.testing.assert_close(layer(x, Context(Sequences.of(x)))[0], wanted)
