"""Training-free eviction against a simulation, query by query."""

from __future__ import annotations

import pytest
import torch

from mixerlang.nn.eviction import hashed
from mixerlang.nn.keeps import Evict, Union, Window

LENGTH = 30


def simulated(layer, x, window, budget, policy):
    """Which keys each (n, g, t) sees, by the definition of tova and h2o."""
    q, k, _ = layer.heads(x)
    share = q.shape[1] // k.shape[1]
    seen = {}
    for n in range(x.shape[0]):
        for g in range(k.shape[1]):
            held, mass = [], [0.0] * LENGTH
            for t in range(LENGTH):
                held.append(t)
                seen[n, g, t] = set(held)
                heads = range(g * share, (g + 1) * share)
                scores = [k[n, g, held] @ q[n, h, t] * layer.attention.scale for h in heads]
                weights = sum(s.softmax(0) for s in scores).tolist()
                for j, weight in zip(held, weights, strict=True):
                    mass[j] = weight if policy == "tova" else mass[j] + weight
                outside = [j for j in held if j <= t + 1 - window]
                if len(outside) > budget:
                    held.remove(min(outside, key=lambda j: (mass[j], -j)))
    return seen


@pytest.mark.parametrize(
    ("keep", "window", "budget", "policy"),
    [
        (Union((Window(4), Evict("tova", 3))), 4, 3, "tova"),
        (Union((Evict("h2o", 3), Window(4))), 4, 3, "h2o"),
        (Evict("tova", 5), 1, 4, "tova"),
        (Evict("tova", 1), 1, 0, "tova"),
    ],
)
@torch.no_grad()
def test_by_attention(Layer, keep, window, budget, policy):
    layer = Layer(keep, position=None)
    x = layer.x(2, LENGTH)
    seen = simulated(layer, x, window, budget, policy)
    assert max(map(len, seen.values())) == window + budget
    torch.testing.assert_close(layer(x), layer.naive(x, lambda n, g, t: seen[n, g, t]))


@pytest.mark.parametrize("policy", ["norm", "random"])
@torch.no_grad()
def test_by_a_score(Layer, policy):
    layer = Layer(Union((Window(4), Evict(policy, 3))), position=None)
    x = layer.x(2, LENGTH)
    _, k, _ = layer.heads(x)
    worth = -k.norm(dim=-1) if policy == "norm" else hashed(torch.arange(LENGTH)).expand(2, 3, -1)

    def sees(n, g, t):
        left = sorted(range(max(0, t - 3)), key=lambda j: (-worth[n, g, j], j))
        return {*left[:3], *range(max(0, t - 3), t + 1)}

    torch.testing.assert_close(layer(x), layer.naive(x, sees))


def test_the_hash_spreads():
    hashes = hashed(torch.arange(100_000))
    assert hashes.min() >= 0 and hashes.max() < 2**24
    assert len(hashes.unique()) > 99_000
    assert abs(hashes.double().mean().item() / 2**24 - 0.5) < 0.01


@pytest.mark.parametrize("policy", ["tova", "h2o", "norm"])
@torch.no_grad()
def test_ties_go_to_the_earliest(Layer, policy):
    """Equal keys: the latest of those outside the window goes, so the first tokens stay."""
    layer = Layer(Union((Window(2), Evict(policy, 3))), position=None, bias=True)
    layer.attention.k_proj.weight.zero_()
    cache = layer.cache(1)
    layer(layer.x(1, LENGTH), cache)
    positions = cache.states["layer"]["groups.0.tokens.positions"]
    # h2o sums over queries, and the earliest tokens were there for most of them.
    held = [p for p in positions[0, 0].tolist() if p >= 0]
    assert held[:3] == [0, 1, 2] and held[-1] == LENGTH - 1


@pytest.mark.parametrize("policy", ["tova", "h2o", "norm", "random"])
@torch.no_grad()
def test_training_sees_everything(Layer, policy):
    layer = Layer(Union((Window(4), Evict(policy, 3))), position=None)
    x = layer.x(2, LENGTH)
    evicted = layer(x)
    layer.attention.train()
    torch.testing.assert_close(layer(x), layer.naive(x, lambda n, g, t: set(range(t + 1))))
    assert not torch.allclose(layer(x), evicted)
    torch.testing.assert_close(layer(x, layer.cache(2)), evicted)
