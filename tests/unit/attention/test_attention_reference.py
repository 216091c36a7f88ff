"""The oracle's mathematics against loops, and against PyTorch's own attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.kernels.attention import reference as ref

torch.manual_seed(0)
Q, K = torch.randn(2, 6, 9, 7).double(), torch.randn(2, 3, 9, 7).double()
V = torch.randn(2, 3, 9, 5).double()
T, J = torch.arange(9).view(1, 1, 9, 1), torch.arange(9).view(1, 1, 1, 9)


def test_equals_pytorch():
    visible = ref.see_past(T, J) & ref.see_window(T, J, 4)
    got = ref.attention(Q, K, V, visible, 0.3)
    k, v = K.repeat_interleave(2, 1), V.repeat_interleave(2, 1)
    wanted = F.scaled_dot_product_attention(Q, k, v, attn_mask=visible[0, 0], scale=0.3)
    torch.testing.assert_close(got, wanted)


def test_every_part_of_the_softmax():
    """Softcap, bias, sink logits and a mask per KV head, one row at a time."""
    visible = torch.rand(2, 3, 9, 9) < 0.5
    sinks, slopes = torch.randn(6).double(), ref.alibi_slopes(6).double()
    bias = ref.alibi_bias(slopes, T, J)
    got = ref.attention(Q, K, V, visible, 0.3, 1.5, sinks, bias)
    for n, h, t in torch.cartesian_prod(*map(torch.arange, (2, 6, 9))).tolist():
        keys = visible[n, h // 2, t].nonzero().flatten()
        scores = 1.5 * torch.tanh(K[n, h // 2, keys] @ Q[n, h, t] * 0.3 / 1.5)
        scores = scores - slopes[h] * (t - keys)
        weights = torch.cat([scores, sinks[h : h + 1]]).softmax(0)[:-1]
        torch.testing.assert_close(got[n, h, t], weights @ V[n, h // 2, keys])


@pytest.mark.parametrize("sinks", [None, torch.zeros(6)])
def test_a_row_that_sees_nothing(sinks):
    q, k, v = (x.clone().requires_grad_() for x in (Q, K, V))
    visible = torch.ones(1, 1, 9, 9, dtype=torch.bool).tril()
    visible[..., 4, :] = False
    out = ref.attention(q, k, v, visible, 0.3, sink_logits=sinks)
    assert (out[:, :, 4] == 0).all() and (out[:, :, 5] != 0).all()
    out.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert (q.grad[:, :, 4] == 0).all()
    nothing = ref.attention(Q, K[:, :, :0], V[:, :, :0], visible[..., :0], 0.3, sink_logits=sinks)
    assert nothing.shape == out.shape and (nothing == 0).all()


def test_half_precision_keeps_its_dtype():
    visible = ref.see_past(T, J)
    out = ref.attention(Q.bfloat16(), K.bfloat16(), V.bfloat16(), visible, 0.3)
    assert out.dtype == torch.bfloat16
    weights = ref.attention_weights(Q.bfloat16(), K.bfloat16(), visible, 0.3)
    assert weights.dtype == torch.float32


def test_positions():
    for t, j in torch.cartesian_prod(torch.arange(9), torch.arange(-1, 9)):
        assert ref.see_past(t, j) == (0 <= j <= t)
        if 0 <= j <= t:
            assert ref.see_window(t, j, 3) == (t - j < 3)
            assert ref.see_sinks(t, j, 2) == (j < 2)
            assert ref.see_strided(t, j, 3) == ((t - j) % 3 == 0)
            assert ref.see_dilated(t, j, 2, 3) == (t - j in (0, 3))


def test_alibi_slopes():
    eight = [2.0**-n for n in range(1, 9)]
    assert ref.alibi_slopes(8).tolist() == pytest.approx(eight)
    twelve = [*eight, *(2**-n for n in (0.5, 1.5, 2.5, 3.5))]
    assert ref.alibi_slopes(12).tolist() == pytest.approx(twelve)
    assert ref.alibi_slopes(1).tolist() == pytest.approx([2**-8])


# --------------------------------------------------------------------------------------- blocks


def test_summary_count():
    for size, stride in ((4, 4), (6, 2), (5, 3), (1, 1)):
        lengths = torch.arange(30)
        wanted = [sum(s + size <= n for s in range(0, 30, stride)) for n in range(30)]
        assert ref.summary_count(lengths, size, stride).tolist() == wanted


def test_block_scores():
    ends = torch.tensor([[[5, -1, 3, 7, 9]]])
    overlap = ref.summary_overlap(ends, 4, 3, 4)
    for s, end in enumerate(ends.flatten().tolist()):
        tokens = range(end - 3, end + 1) if end >= 0 else []
        shares = [sum(token // 3 == block for token in tokens) / 4 for block in range(4)]
        assert overlap[0, 0, s].tolist() == shares
    weights = torch.rand(1, 6, 2, 5)
    scores = ref.block_scores(weights, overlap, 3)
    wanted = torch.einsum("grqs,sb->gqb", weights.view(3, 2, 2, 5), overlap[0, 0])
    torch.testing.assert_close(scores[0], wanted)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.integers(0, 2), st.integers(1, 3), st.integers(0, 4),
)  # fmt: skip
def test_select_blocks(scores, first, last, more):
    """Forced blocks, then the best; equal scores go to the lower index."""
    top, current = first + last + more, len(scores) - 1
    padded = torch.tensor([[[*scores, 9, 9]]]).float().unsqueeze(0)
    chosen = ref.select_blocks(padded, torch.tensor(current), top, first, last)
    forced = [b for b in range(current + 1) if b < first or b > current - last]
    free = sorted(set(range(current + 1)) - set(forced), key=lambda b: (-scores[b], b))
    wanted = set((forced + free)[:top])
    assert set(chosen[0, 0, 0].nonzero().flatten().tolist()) == wanted


def test_straight_through_blocks():
    """Forward nothing changes; the gradient is that of weights times 1 + score."""
    weights = torch.rand(1, 6, 9, 9).double()
    scores = torch.rand(1, 3, 9, 3).double().requires_grad_()
    out = ref.straight_through_blocks(weights, scores, J, 3)
    torch.testing.assert_close(out, weights)
    ahead = torch.rand_like(weights)
    (out * ahead).sum().backward()
    wanted = (weights * ahead).view(1, 3, 2, 9, 3, 3).sum((2, 5))
    torch.testing.assert_close(scores.grad, wanted)


# ------------------------------------------------------------------------ learned token eviction


def test_straight_through():
    """dL/ds[j] = <dL/dv[j], v[j]>, the identity to v, nothing forward."""
    v = V.clone().requires_grad_()
    score = torch.randn(2, 3, 9).double().requires_grad_()
    out = ref.straight_through(v, score)
    assert torch.equal(out, v)
    ahead = torch.randn_like(V)
    (out * ahead).sum().backward()
    assert torch.equal(v.grad, ahead)
    torch.testing.assert_close(score.grad, (ahead * V).sum(-1))
