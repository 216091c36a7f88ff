"""The chunked recurrence against the token-by-token one, and that one against what it means."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn.functional import normalize

from mixerlang.kernels.recurrence import chunked, reference

LENGTHS = (1, 2, 63, 64, 65, 130)
DECAYS = ("none", "scalar", "vector")
RULES = ("additive", "delta", "normalized")


def problem(length, decay, *, dtype=torch.float64, strength=1.0, heads=2, group=1, dims=(5, 7)):
    """q, k, v, g, b, state, z of 2 sequences; keys of unit length keep the delta rule stable."""
    torch.manual_seed(length)
    key_dim, value_dim = dims
    value_heads = heads * group

    def randn(*shape):
        return torch.randn(2, *shape, dtype=dtype)

    g = {
        "none": None,
        "scalar": -strength * torch.rand(2, length, value_heads, dtype=dtype),
        "vector": -strength * torch.rand(2, length, heads, key_dim, dtype=dtype),
    }[decay]
    return {
        "q": randn(length, heads, key_dim),
        "k": normalize(randn(length, heads, key_dim), dim=-1),
        "v": randn(length, value_heads, value_dim),
        "g": g,
        "b": 2 * torch.rand(2, length, value_heads, dtype=dtype),
        "state": randn(value_heads, key_dim, value_dim),
        "z": None,
    }


def flags(rule):
    return {"delta": rule == "delta", "normalize": rule == "normalized", "scale": 0.3}


def run(recurrence, tensors, rule):
    """Outputs and the gradients of a function of them all."""
    leaves = {n: t.clone().requires_grad_() for n, t in tensors.items() if t is not None}
    outputs = [x for x in recurrence(**{**tensors, **leaves}, **flags(rule)) if x is not None]
    total = sum((x.square() * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in outputs)
    return outputs + list(torch.autograd.grad(total, list(leaves.values())))


@pytest.mark.parametrize(("length", "decay", "rule"), [*product(LENGTHS, DECAYS, RULES)])
def test_outputs_and_gradients(length, decay, rule):
    tensors = problem(length, decay, group=3 if length == 65 else 1)
    if rule == "normalized":  # positive features, so that nothing divides by nearly zero
        tensors |= {"q": tensors["q"].abs(), "k": tensors["k"].abs()}
        tensors["z"] = tensors["state"][..., 0].abs()
    expected = run(reference.recurrence, tensors, rule)
    for ours, theirs in zip(run(chunked.recurrence, tensors, rule), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("decay", "rule"), [*product(DECAYS[1:], RULES[:2])])
@pytest.mark.parametrize("strength", [30.0, 1e4])
def test_strong_decay(decay, rule, strength):
    """Sums of the log-decay within a chunk reach -1,000 and far beyond, beside weak ones."""
    tensors = problem(130, decay, strength=strength)
    tensors["g"][:, ::3] *= 1e-6
    expected = run(reference.recurrence, tensors, rule)
    floats = {n: None if t is None else t.float() for n, t in tensors.items()}
    for ours, theirs in zip(run(chunked.recurrence, floats, rule), expected, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours.double(), theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("decay", DECAYS[1:])
def test_a_token_that_forgets_everything(decay):
    tensors = problem(70, decay)
    tensors["g"][:, 40] = -torch.inf
    for outputs in zip(
        run(chunked.recurrence, tensors, "delta"),
        run(reference.recurrence, tensors, "delta"),
        strict=True,
    ):
        torch.testing.assert_close(*outputs, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_repeated_keys_with_b_near_two(spread):
    """I - b k k^T then flips the same direction again and again: the solve must not amplify."""
    tensors = problem(130, "none")
    tensors["k"] = normalize(tensors["k"][:, :1] + spread * tensors["k"], dim=-1)
    tensors["b"].fill_(1.99)
    expected, _, _ = reference.recurrence(**tensors, **flags("delta"))
    floats = {n: None if t is None else t.float() for n, t in tensors.items()}
    ours, _, _ = chunked.recurrence(**floats, **flags("delta"))
    torch.testing.assert_close(ours.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("recurrence", [reference.recurrence, chunked.recurrence])
def test_bfloat16_in_float32_state(recurrence):
    exact = problem(66, "scalar")
    half = {n: None if t is None else t.bfloat16() for n, t in exact.items()}
    o, state, _ = recurrence(**half, **flags("delta"))
    wide = {n: None if t is None else t.double() for n, t in half.items()}
    expected, last, _ = reference.recurrence(**wide, **flags("delta"))
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(state.double(), last, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(o.double(), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("recurrence", [reference.recurrence, chunked.recurrence])
def test_no_tokens_leave_the_state_alone(recurrence):
    tensors = problem(0, "scalar")
    o, state, _ = recurrence(**tensors, **flags("delta"))
    assert o.shape == tensors["v"].shape
    assert torch.equal(state, tensors["state"])


def test_additive_is_attention_without_softmax():
    tensors = problem(9, "scalar", heads=1) | {"b": None, "state": None}
    q, k, v, g = (tensors[name][:, :, 0] for name in "qkvg")
    o, _, _ = reference.recurrence(**tensors, scale=0.3)
    total = g.cumsum(1)
    scores = 0.3 * q @ k.mT * (total[:, :, None] - total[:, None]).exp()
    torch.testing.assert_close(o[:, :, 0], scores.tril() @ v)


def test_normalized_is_a_weighted_mean():
    tensors = problem(9, "none", heads=1) | {"b": None, "state": None}
    q, k = tensors["q"].abs(), tensors["k"].abs()
    o, _, _ = reference.recurrence(**tensors | {"q": q, "k": k}, normalize=True, scale=0.3)
    scores = (q[:, :, 0] @ k[:, :, 0].mT).tril()
    weights = scores / scores.sum(-1, keepdim=True)
    torch.testing.assert_close(o[:, :, 0], weights @ tensors["v"][:, :, 0])


def test_delta_stores_the_last_value_of_each_key():
    """With orthonormal keys and b = 1 the state is a table; a key written twice is overwritten."""
    keys = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 0]][None, :, None]
    values = torch.randn(1, 4, 1, 3, dtype=torch.float64)
    _, state, _ = reference.recurrence(keys, keys, values, delta=True)
    expected = torch.stack([values[0, 3, 0], values[0, 1, 0], values[0, 2, 0], torch.zeros(3)])
    torch.testing.assert_close(state[0, 0], expected.double())


def test_value_heads_next_to_each_other_share_a_key_head():
    tensors = problem(5, "vector", heads=2, group=2)
    o, _, _ = reference.recurrence(**tensors, **flags("delta"))
    for head in range(4):
        of_values = {n: tensors[n][:, :, head, None] for n in ("v", "b")}
        of_keys = {n: tensors[n][:, :, head // 2, None] for n in ("q", "k", "g")}
        state = tensors["state"][:, head, None]
        alone, _, _ = reference.recurrence(**of_values, **of_keys, state=state, **flags("delta"))
        torch.testing.assert_close(o[:, :, head, None], alone)
