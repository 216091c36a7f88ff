"""The forward's contract: what it takes, what it refuses, how a cache moves on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mixerlang.nn.model import Model
from mixerlang.runtime.load import load

SPEC = """
model m {
  vocab = 31; dim = 16; context = 64; ffn = swiglu(hidden=24); init = normal(std=0.3)
  embedding_scale = 4; logit_scale = 0.5; logit_softcap = 2; dropout = 0.5; tie_embeddings = true
  let shared = tied(layer(gated_deltanet(2, head_dim=8)))
  let part = tied(attention(2, keep=window(6) | learned(budget=4)))
  layers = [shared, part, shared, part]
}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("forward")
    (folder / "m.mix").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXERLANG_CACHE", str(folder))
        yield load(folder / "m.mix", seed=0, dtype=torch.float64).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(31, shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_tied_layers_and_mixers_have_a_cache_for_each_place(model: Model) -> None:
    cache = model.new_cache(2, max_length=20)
    assert set(cache.states) == {f"layers.{index}.mixer" for index in range(4)}
    batch = ids(2, 20)
    parts = [model(part, cache=cache) for part in batch.split([9, 1, 10], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(batch))
    first, third = cache.states["layers.0.mixer"], cache.states["layers.2.mixer"]
    assert not any(torch.equal(first[name], third[name]) for name in first)


@torch.no_grad()
def test_a_cache_counts_and_has_the_models_dtype(model: Model) -> None:
    cache = model.new_cache(3)
    model(ids(1, 12), cu_seqlens=torch.tensor([0, 5, 6, 12]), cache=cache)
    assert cache.seen.tolist() == [5, 1, 6]
    model(ids(3, 2), cache=cache)
    assert cache.seen.tolist() == [7, 3, 8]
    floating = [t for s in cache.states.values() for t in s.values() if t.is_floating_point()]
    assert floating and all(tensor.dtype == torch.float64 for tensor in floating)


def test_no_gradient_goes_back_through_a_cache(model: Model) -> None:
    """Or it would hold the graphs of all calls so far."""
    cache = model.new_cache(2)
    for part in ids(2, 12).split([9, 1, 1, 1], 1):
        assert model(part, cache=cache).requires_grad
        states = [tensor for state in cache.states.values() for tensor in state.values()]
        assert states and not any(tensor.requires_grad for tensor in states)


@torch.no_grad()
def test_last_only_is_the_last_of_each_sequence(model: Model) -> None:
    batch, ends = ids(1, 12), torch.tensor([0, 5, 6, 12])
    whole = model(batch, cu_seqlens=ends)
    last = model(batch, cu_seqlens=ends, last_only=True)
    torch.testing.assert_close(last[:, 0], whole[0, ends[1:] - 1])
    torch.testing.assert_close(model(batch, last_only=True), model(batch)[:, -1:])


@torch.no_grad()
def test_fields_around_the_layers(model: Model) -> None:
    """By hand: scaled embeddings, tied head, scale, softcap."""
    batch = ids(2, 7)
    inputs = []
    hook = model.layers[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    normed = []
    other = model.final_norm.register_forward_hook(lambda *args: normed.append(args[2]))
    logits = model(batch)
    hook.remove()
    other.remove()
    torch.testing.assert_close(inputs[0], 4 * model.embedding.weight[batch])
    raw = 0.5 * normed[0] @ model.embedding.weight.T
    torch.testing.assert_close(logits, 2 * torch.tanh(raw / 2))


def test_dropout_is_for_training(model: Model) -> None:
    batch = ids(2, 7)
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))
    model.eval()


def test_aux_is_returned_where_it_is_asked_for(model: Model) -> None:
    logits, aux = model(ids(2, 9), return_aux=True)
    assert torch.equal(logits, model(ids(2, 9)))
    owners = {path.rpartition(".branches")[0] or path for path in aux}
    assert owners == {"layers.1.mixer", "layers.3.mixer"}
    reported = [value for found in aux.values() for value in found.values()]
    assert reported and all(isinstance(value, torch.Tensor) for value in reported)


BAD_TOKENS = [
    (torch.zeros(2, 3, dtype=torch.int32), "int64"),
    (torch.zeros(2, 3), "int64"),
    (torch.zeros(3, dtype=torch.int64), r"\(B, T\)"),
    (torch.zeros(2, 0, dtype=torch.int64), "empty"),
    (torch.zeros(0, 2, dtype=torch.int64), "empty"),
    (torch.tensor([[0, 31]]), "0..30"),
    (torch.tensor([[-1, 0]]), "0..30"),
]


@pytest.mark.parametrize(("tokens", "message"), BAD_TOKENS)
def test_bad_tokens(tokens: torch.Tensor, message: str, model: Model) -> None:
    with pytest.raises(ValueError, match=message):
        model(tokens)


def test_bad_caches(model: Model) -> None:
    with pytest.raises(ValueError, match="batch must be at least 1"):
        model.new_cache(0)
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        model.new_cache(1, max_length=0)
    cache = model.new_cache(2, max_length=4)
    with pytest.raises(ValueError, match="2 sequences and the call brings 1"):
        model(ids(1, 2), cache=cache)
    with pytest.raises(ValueError, match="holds 4 tokens; this call makes 5"):
        model(ids(2, 5), cache=cache)
    assert cache.seen.tolist() == [0, 0]
    with pytest.raises(ValueError, match="cu_seqlens"):
        model(ids(1, 5), cu_seqlens=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="int32 or int64"):
        model(ids(1, 5), cu_seqlens=torch.tensor([0, 2.5, 5]))


@torch.no_grad()
def test_a_cache_of_another_model_is_refused() -> None:
    one, other = (load(f"specs/tiny/{name}.mix", seed=0).eval() for name in ("gdn", "lalte"))
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="of another model"):
        other(tokens, cache=one.new_cache(1))
