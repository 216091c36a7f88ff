"""Learned token eviction: the scorer, the cache, training, and the rule of the paper by loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mixerlang.nn.keeps import Cnn, GatedKeep, Learned, Union, Window
from mixerlang.nn.scorer import CnnScorer
from mixerlang.nn.sequences import Sequences

CNN = Cnn((3, 5), (2, 1), dropout=0.0)
WINDOW, BUDGET, SINKS = 5, 4, 1
KEEP = Union((Window(WINDOW), Learned(BUDGET, SINKS, CNN)))
LENGTH = 40


def scores_of(layer, x):
    """The layer's logits of a whole sequence: (N, G, T)."""
    _, k, v = layer.heads(x)
    scorer = layer.attention.branches[0].scorer
    return scorer(torch.cat([k, v], -1), Sequences.of(x))


def best(z, left):
    """The slots after the first `left` tokens have left the window: sinks, and the best of them."""
    candidates = [j for j in range(SINKS, left) if z[j] > 0]
    chosen = sorted(candidates, key=lambda j: (-z[j], j))[: BUDGET - SINKS]
    return set(range(min(SINKS, left))) | set(chosen)


# --------------------------------------------------------------------------------- the scorer


def test_each_layer_is_zero_outside():
    """The CNN head by head and tap by tap, each layer's input zero outside the sequence."""
    scorer = CnnScorer(2, 7, 4, CNN).double()
    counts = [11, 3]
    kv = torch.randn(2, 2, 11, 7).double()
    kv[1, :, 3:] = 0
    sequences = Sequences(torch.tensor(counts), torch.zeros(2, dtype=torch.int64), 11)
    got = scorer(kv, sequences)
    assert torch.equal(scorer(kv[:1], Sequences.of(kv[0, :1])), got[:1])
    for n, g in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x = [kv[n, g, t] for t in range(counts[n])]
        for conv, dilation in zip(scorer.convs, CNN.dilations, strict=True):
            weight = conv.weight.chunk(2)[g]
            middle = weight.shape[-1] // 2
            y = []
            for t in range(len(x)):
                total = conv.bias.chunk(2)[g]
                for tap in range(weight.shape[-1]):
                    source = t + (tap - middle) * dilation
                    if 0 <= source < len(x):
                        total = total + weight[..., tap] @ x[source]
                y.append(F.silu(total))
            x = y
        last = scorer.proj.weight.chunk(2)[g][0, :, 0], scorer.proj.bias[g]
        wanted = torch.stack([value @ last[0] + last[1] for value in x])
        torch.testing.assert_close(got[n, g, : counts[n]], wanted)


def test_streaming_equals_whole():
    scorer = CnnScorer(3, 5, 4, CNN).double()
    kv = torch.randn(2, 3, 30, 5).double()
    whole = scorer(kv, Sequences.of(kv[:, 0]))
    state = scorer.new_state(2, torch.float64, kv.device)
    constant = [x.numel() for x in state.values()]
    assert constant == [2 * 3 * 5 * 4, 2 * 3 * 4 * 4]
    seen = torch.zeros(2, dtype=torch.int64)
    streamed = []
    for part in kv.split([1, 2, 9, 1, 17], dim=2):
        logits, state = scorer.stream(part, Sequences.of(part[:, 0], seen=seen), state)
        streamed.append(logits)
        seen = seen + part.shape[2]
        assert [x.numel() for x in state.values()] == constant
    ahead = CNN.lookahead
    final = torch.cat(streamed, -1)[..., ahead:]
    torch.testing.assert_close(final, whole[..., :-ahead])


def test_starts_by_keeping():
    torch.manual_seed(0)
    scorer = CnnScorer(4, 64, 32, Cnn())
    assert torch.equal(scorer.proj.bias, torch.full((4,), 0.5))
    assert scorer.convs[0].weight.std().item() == pytest.approx((2 / (64 * 3)) ** 0.5, rel=0.05)
    assert scorer.convs[1].bias.abs().max() <= (32 * 3) ** -0.5  # torch's default
    assert [tuple(conv.weight.shape) for conv in scorer.convs] == [
        (128, 64, 3), (64, 32, 3), (32, 16, 3),
    ]  # fmt: skip
    assert Cnn().lookahead == 6


# ------------------------------------------------------------------------------------ the rule


@torch.no_grad()
def test_forward_by_loops(Layer):
    layer = Layer(KEEP, position=None)
    x = layer.x(2, LENGTH)
    z = scores_of(layer, x).tolist()
    kept = [sum(v > 0 for v in head) for row in z for head in row]
    assert max(kept) > 2 * BUDGET, "the budget must bind for this to be a test"

    def sees(n, g, t):
        window = set(range(max(0, t - WINDOW + 1), t + 1))
        return window | best(z[n][g], max(0, t - WINDOW + 1))

    torch.testing.assert_close(layer(x), layer.naive(x, sees))


@torch.no_grad()
def test_the_cache_after_every_token(Layer):
    """It holds the window and exactly the best of those that left, and never more."""
    layer = Layer(KEEP)
    layer.attention.position = None  # so that `heads` gives the scorer's input
    x = layer.x(2, LENGTH)
    z = scores_of(layer, x).tolist()
    cache = layer.cache(2)
    start = cache.nbytes
    for t in range(LENGTH):
        layer(x[:, t : t + 1], cache)
        positions = cache.states["layer"]["groups.0.tokens.positions"]
        assert positions.shape[-1] == WINDOW + BUDGET
        left = max(0, t - WINDOW + 1)
        for n in range(2):
            for g in range(3):
                held = [p for p in positions[n, g].tolist() if p >= 0]
                wanted = set(range(left, t + 1)) | best(z[n][g], left)
                assert held == sorted(wanted)
    assert cache.nbytes == start


@torch.no_grad()
def test_a_head_that_keeps_nothing(Layer):
    """All logits negative: the window and the sinks are left, in training too."""
    layer = Layer(KEEP, position=None)
    proj = layer.attention.branches[0].scorer.proj
    proj.weight[1] = 0
    proj.bias[1] = -1.0
    x = layer.x(1, LENGTH)
    cache = layer.cache(1)
    full = layer(x)
    torch.testing.assert_close(layer(x, cache), full)
    held = cache.states["layer"]["groups.0.tokens.positions"][0, 1]
    assert held[held >= 0].tolist() == [0, *range(LENGTH - WINDOW, LENGTH)]

    def sees(n, g, t):
        return {0, *range(max(0, t - WINDOW + 1), t + 1)}

    layer.attention.o_proj.weight[:, :10] = 0  # heads 0, 1 of KV head 0
    layer.attention.o_proj.weight[:, 20:] = 0  # heads 4, 5 of KV head 2
    only = layer.naive(x, sees)
    torch.testing.assert_close(layer(x), only)
    layer.attention.train()
    torch.testing.assert_close(layer(x), only)


@torch.no_grad()
def test_training_has_no_cap_unless_told(Layer):
    layer = Layer(KEEP, position=None)
    x = layer.x(1, LENGTH)
    z = scores_of(layer, x)[0].tolist()

    def sees(n, g, t):
        return {j for j in range(t + 1) if t - j < WINDOW or j < SINKS or z[g][j] > 0}

    capped = layer(x)
    layer.attention.train()
    torch.testing.assert_close(layer(x), layer.naive(x, sees))
    assert not torch.allclose(layer(x), capped)
    torch.testing.assert_close(layer(x, layer.cache(1)), capped)  # a cache has no room for more
    told = Layer(Union((Window(WINDOW), Learned(BUDGET, SINKS, CNN, capped=True))), position=None)
    told.attention.train()
    torch.testing.assert_close(told(x), capped)


def test_gradient_of_the_scores(Layer):
    """dL/ds[j, h] = <dL/dv[j, h], v[j, h]> in the layer, provisional scores included."""
    layer = Layer(KEEP, position=None)
    layer.attention.train()
    x = layer.x(1, LENGTH)
    z = scores_of(layer, x).detach().requires_grad_()
    layer.attention.branches[0].scorer.forward = lambda kv, sequences: z
    values = []

    def leaf(module, inputs, output):
        values.append(output.detach().requires_grad_())
        return values[0]

    layer.attention.v_proj.register_forward_hook(leaf)
    y = layer(x)
    (y * torch.randn_like(y)).sum().backward()
    wanted = (values[0].grad * values[0]).view(1, LENGTH, 3, 5).sum(-1).transpose(1, 2)
    slope = z.sigmoid() * (1 - z.sigmoid())
    torch.testing.assert_close(z.grad / slope, wanted)
    assert z.grad[..., -CNN.lookahead :].abs().min() > 0


def test_the_scorer_trains_keys_and_values(Layer):
    """Through the CNN a price on scores reaches k and v, which are not detached."""
    layer = Layer(KEEP)
    layer.attention.train()
    aux = {}
    layer(layer.x(1, LENGTH), aux=aux)
    aux["layer.branches.0"]["score"].relu().sum().backward()
    assert layer.attention.k_proj.weight.grad.abs().sum() > 0
    assert layer.attention.v_proj.weight.grad.abs().sum() > 0
    assert layer.attention.q_proj.weight.grad is None


@torch.no_grad()
def test_equal_scores(Layer):
    """An arriving tie is refused, so with one score for all the first tokens stay."""
    layer = Layer(KEEP)
    scorer = layer.attention.branches[0].scorer
    scorer.proj.weight.zero_()
    scorer.proj.bias.fill_(0.25)
    x = layer.x(1, LENGTH)
    cache = layer.cache(1)
    torch.testing.assert_close(layer.in_parts(x, [1] * LENGTH, cache), layer(x))
    held = cache.states["layer"]["groups.0.tokens.positions"]
    assert (held[..., :BUDGET] == torch.arange(BUDGET)).all()


# ----------------------------------------------------------------------------------- the report


@torch.no_grad()
def test_report(Layer):
    layer = Layer(KEEP, position=None)
    x = layer.x(1, 30)
    aux = {}
    layer(x, lengths=[20, 8, 2], aux=aux)
    score, final = aux["layer.branches.0"].values()
    assert score.shape == (3, 3, 20) and final.shape == (3, 20)
    assert final.sum(-1).tolist() == [20 - CNN.lookahead, 8 - CNN.lookahead, 0]
    torch.testing.assert_close(score[:1], scores_of(layer, x[:, :20]).sigmoid() - 0.5)

    cache = layer.cache(1)
    streamed = []
    for part in x[:, :20].split([3, 9, 8], dim=1):
        aux = {}
        layer(part, cache, aux=aux)
        own = aux["layer.branches.0"]
        streamed.append(own["score"][0][:, own["final"][0]])
    torch.testing.assert_close(torch.cat(streamed, -1), score[0][:, final[0]])


@torch.no_grad()
def test_half_precision_decides_in_float32(Layer):
    layer = Layer(KEEP, dtype=torch.bfloat16)
    aux = {}
    y = layer(layer.x(1, LENGTH), layer.cache(1), aux=aux)
    assert y.dtype == torch.bfloat16 and y.isfinite().all()
    assert aux["layer.branches.0"]["score"].dtype == torch.float32


@torch.no_grad()
def test_beside_a_branch_that_holds_everything(Layer):
    """What another branch still holds does not come back to life here."""
    outs = []
    for other in (Window(1), Window(1000)):
        layer = Layer(GatedKeep((KEEP, other)))
        own = []
        layer.attention.branches[0].register_forward_hook(
            lambda m, i, o, own=own: own.append(o.out)
        )
        layer.in_parts(layer.x(1, LENGTH), [7, 1, 1, 20, 11], layer.cache(1))
        outs.append(torch.cat(own, 2))
    torch.testing.assert_close(*outs)
