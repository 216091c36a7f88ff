"""Selected and summarised blocks against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mixerlang.nn.keeps import Blocks, Compressed, GatedKeep, MlpMap, Window

LENGTH = 33


def summaries(layer, maker, x, length=LENGTH):
    """{last token: (keys (N, G, D), values or None)} of the complete blocks."""
    _, k, v = layer.heads(x)
    found = {}
    for start in range(0, length - maker.size + 1, maker.stride):
        span = slice(start, start + maker.size)
        values = None if maker.value_map is None else mapped(maker.value_map, v[:, :, span])
        found[start + maker.size - 1] = mapped(maker.key_map, k[:, :, span]), values
    return found


def mapped(rule, block):
    """A block (N, G, size, D) summarised, written out."""
    if not list(rule.parameters()):
        return sum(block.unbind(2)) / block.shape[2]
    hidden = F.silu(F.linear((block + rule.places).flatten(2), rule.up.weight, rule.up.bias))
    return F.linear(hidden, rule.down.weight, rule.down.bias)


def summary_weights(layer, found, q, n, h, g, t):
    """softmax of query (n, h, t) over the summaries that are complete there: {end: weight}."""
    ends = [end for end in found if end <= t]
    if not ends:
        return {}
    scores = torch.stack([found[end][0][n, g] @ q[n, h, t] for end in ends])
    return dict(zip(ends, (scores * layer.attention.scale).softmax(0).tolist(), strict=True))


def chosen(keep, score, t):
    """The blocks of query t, from the score of each block."""
    current = t // keep.size
    forced = {
        b for b in range(current + 1) if b < keep.forced_first or b > current - keep.forced_last
    }
    free = sorted(set(range(current + 1)) - forced, key=lambda b: (-score(b), b))
    return forced | set(free[: keep.top - len(forced)])


@pytest.mark.parametrize("keep", [Blocks(3, 4), Blocks(4, 3, 0, 1), Blocks(3, 3, 1, 1, "mlp")])
@torch.no_grad()
def test_selection(Layer, keep):
    layer = Layer(keep, position=None)
    x = layer.x(1, LENGTH)
    q, _, _ = layer.heads(x)
    found = summaries(layer, layer.attention.branches[0].selectors[0].summaries, x)

    def sees(n, g, t):
        weights = [summary_weights(layer, found, q, n, h, g, t) for h in (2 * g, 2 * g + 1)]

        def score(b):
            return sum(w.get((b + 1) * keep.size - 1, 0.0) for w in weights)

        blocks = chosen(keep, score, t)
        return {j for j in range(t + 1) if j // keep.size in blocks}

    assert len(sees(0, 0, LENGTH - 1)) < LENGTH
    torch.testing.assert_close(layer(x), layer.naive(x, sees))


@pytest.mark.parametrize("keep", [Compressed(4), Compressed(5, 2), Compressed(4, 3, MlpMap(2))])
@torch.no_grad()
def test_compression(Layer, keep):
    layer = Layer(keep, position=None)
    x = layer.x(2, LENGTH)
    q, _, _ = layer.heads(x)
    found = summaries(layer, layer.attention.branches[0].summaries, x)
    out = torch.zeros(2, 6, LENGTH, 5).double()
    for n, h, t in torch.cartesian_prod(*map(torch.arange, (2, 6, LENGTH))).tolist():
        for end, weight in summary_weights(layer, found, q, n, h, h // 2, t).items():
            out[n, h, t] += weight * found[end][1][n, h // 2]
    wanted = layer.attention.o_proj(out.transpose(1, 2).flatten(2))
    got = layer(x)
    torch.testing.assert_close(got, wanted)
    assert (got[:, : keep.size - 1] == 0).all() and (got[:, keep.size - 1] != 0).any()


@torch.no_grad()
def test_selection_by_the_compressed_branch(Layer):
    """NSA: a block's score is the probability of the summaries that overlap it, by their share."""
    blocks = Blocks(6, 3, 1, 1, "compressed")
    layer = Layer(GatedKeep((blocks, Compressed(4, 2), Window(2))), position=None)
    x = layer.x(1, LENGTH)
    q, _, _ = layer.heads(x)
    found = summaries(layer, layer.attention.branches[1].summaries, x)

    def sees(n, g, t):
        weights = [summary_weights(layer, found, q, n, h, g, t) for h in (2 * g, 2 * g + 1)]

        def score(b):
            return sum(
                weight * sum((end - i) // 6 == b for i in range(4))
                for per_head in weights
                for end, weight in per_head.items()
            )

        return {j for j in range(t + 1) if j // 6 in chosen(blocks, score, t)}

    parts = []
    layer.attention.branches[0].register_forward_hook(lambda m, i, seen: parts.append(seen.out))
    layer(x)
    out = layer.attention.o_proj(parts[0].transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, layer.naive(x, sees))


@torch.no_grad()
def test_gates(Layer):
    """Branches over one k and v, each times sigmoid(Linear(x)) per query head."""
    keep = GatedKeep((Window(3), Window(9)))
    layer = Layer(keep, position=None)
    x = layer.x(2, LENGTH)
    gates = layer.attention.branch_gate(x).sigmoid().view(2, LENGTH, 6, 2)
    alone = []
    for window in (3, 9):
        other = Layer(Window(window), position=None)
        other.attention.load_state_dict(layer.attention.state_dict(), strict=False)
        other.attention.o_proj = torch.nn.Identity()
        alone.append(other(x).view(2, LENGTH, 6, 5))
    mixed = (torch.stack(alone, -1) * gates.unsqueeze(-2)).sum(-1)
    torch.testing.assert_close(layer(x), layer.attention.o_proj(mixed.flatten(2)))


def test_a_learned_choice_of_blocks_is_trained(Layer):
    """Straight through the choice; what the layer computes is the same in training."""
    layer = Layer(Blocks(3, 3, 1, 1, "mlp"))
    layer.attention.train()
    x = layer.x(1, LENGTH)
    layer(x).square().sum().backward()
    maker = layer.attention.branches[0].selectors[0].summaries
    assert all(p.grad.abs().sum() > 0 for p in maker.key_map.parameters())
    trained = layer(x)
    layer.attention.eval()
    torch.testing.assert_close(layer(x), trained)
