"""Generation: greedy, sampled, streamed; prompts of unequal length; what may go wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mixerlang.nn.generation import Sampling
from mixerlang.nn.mixer import Cache
from mixerlang.nn.model import Model
from mixerlang.nn.stepping import Step
from mixerlang.runtime.load import load

SPEC = """
model m {
  vocab = 31; dim = 16; context = 64; ffn = swiglu(hidden=24); init = normal(std=0.3)
  let shared = tied(layer(gated_deltanet(2, head_dim=8)))
  let part = tied(attention(2, keep=window(4)))
  layers = [shared, part, attention(2, keep=window(6) | evict(tova, budget=3)), part, shared]
}
"""
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2], [3, 8]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("generation")
    (folder / "m.mix").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXERLANG_CACHE", str(folder))
        yield load(folder / "m.mix", seed=0, dtype=torch.float64)


def greedy_by_hand(model: Model, prompt: list[int], count: int) -> list[int]:
    """The argmax of a full forward, again and again."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(model.eval()(torch.tensor([tokens]))[0, -1].argmax()))
    model.train()
    return tokens[len(prompt) :]


def test_greedy_is_the_argmax_of_the_full_forward(model: Model) -> None:
    wanted = [greedy_by_hand(model, prompt, 9) for prompt in PROMPTS]
    assert len({token for row in wanted for token in row}) > 5, "the model says the same always"
    assert model.generate(PROMPTS, 9) == wanted
    assert [model.generate([prompt], 9)[0] for prompt in PROMPTS] == wanted


def test_the_first_token_waits_for_no_step(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    module = inspect.getmodule(type(model).stream)
    assert module is not None
    made, stepper = list[int](), module.stepper

    def noting(model: Model, cache: Cache, steps: int) -> Step:
        made.append(steps)
        return stepper(model, cache, steps)

    monkeypatch.setattr(module, "stepper", noting)
    stream = model.stream(PROMPTS, 5)
    first = next(stream)
    assert made == []
    assert [first, *stream] == [
        list(step) for step in zip(*model.generate(PROMPTS, 5), strict=True)
    ]
    assert made == [4, 4]
    model.generate(PROMPTS, 1)
    assert made == [4, 4]


@pytest.mark.parametrize("chunk", [1, 2, 3, 10, 11, 100])
def test_a_chunked_prefill_changes_nothing(chunk: int, model: Model) -> None:
    assert model.generate(PROMPTS, 5, prefill_chunk=chunk) == model.generate(PROMPTS, 5)


def test_prompts_may_be_tensors(model: Model) -> None:
    batch = torch.tensor([[1, 2, 3], [4, 5, 6]])
    wanted = model.generate([[1, 2, 3], [4, 5, 6]], 4)
    assert model.generate(batch, 4) == wanted
    assert model.generate(list(batch), 4) == wanted


def test_eos_ends_a_row_and_not_the_others(model: Model) -> None:
    free = model.generate(PROMPTS, 9)
    eos = free[0][2]
    ended = model.generate(PROMPTS, 9, eos=eos)
    for row, whole in zip(ended, free, strict=True):
        stop = whole.index(eos) + 1 if eos in whole else len(whole)
        assert row == whole[:stop]
    steps = list(model.stream(PROMPTS[:1], 9, eos=eos))
    assert steps == [[token] for token in ended[0]]


def test_stream_gives_each_step(model: Model) -> None:
    seen: list[list[int | None]] = []
    rows = model.generate(PROMPTS, 4, stream=seen.append)
    assert [list(column) for column in zip(*rows, strict=True)] == seen
    assert list(model.stream(PROMPTS, 4)) == seen


def test_modes_are_the_callers_again(model: Model) -> None:
    model.train()
    model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    stream = model.stream(PROMPTS, 3)
    for _ in stream:
        assert torch.is_grad_enabled()
        assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="0..30"):
        model.generate([[31]], 1)
    assert [module.training for module in model.modules()] == modes
    model.train()


def test_the_seed_decides(model: Model) -> None:
    options = {"temperature": 1.5, "top_k": 20, "top_p": 0.95}
    before = torch.get_rng_state()
    first = model.generate(PROMPTS, 12, seed=1, **options)  # type: ignore[arg-type]
    assert first == model.generate(PROMPTS, 12, seed=1, **options)  # type: ignore[arg-type]
    assert first != model.generate(PROMPTS, 12, seed=2, **options)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())
    generator = torch.Generator().manual_seed(1)
    assert first == model.generate(PROMPTS, 12, generator=generator, **options)  # type: ignore[arg-type]
    assert model.generate(PROMPTS, 12, temperature=1.5, top_k=1) == model.generate(PROMPTS, 12)


@st.composite
def logits(draw: st.DrawFn) -> Tensor:
    values = st.floats(-8, 8, width=32)
    rows = draw(st.lists(st.lists(values, min_size=6, max_size=6), min_size=1, max_size=3))
    return torch.tensor(rows)


@given(logits(), st.floats(0.1, 3), st.integers(1, 8))
def test_top_k_keeps_the_k_likeliest(x: Tensor, temperature: float, k: int) -> None:
    p = Sampling(temperature, top_k=k).probabilities(x)
    full = (x / temperature).softmax(-1)
    assert ((p > 0).sum(-1) <= k).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(len(x)))
    for row, kept in zip(full, p > 0, strict=True):
        if kept.sum() == min(k, 6):
            assert row[kept].min() >= row[~kept].max() if (~kept).any() else True


@given(logits(), st.floats(0.1, 3), st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_reach_p(x: Tensor, temperature: float, top_p: float) -> None:
    p = Sampling(temperature, top_p=top_p).probabilities(x)
    full = (x / temperature).softmax(-1)
    torch.testing.assert_close(p.sum(-1), torch.ones(len(x)))
    for row, kept in zip(full, p > 0, strict=True):
        mass = row[kept]
        assert len(mass) >= 1 and mass.max() == row.max()
        assert mass.sum() >= top_p - 1e-5
        assert mass.sum() - mass.min() < top_p + 1e-5
        torch.testing.assert_close(p[0][p[0] > 0], full[0][p[0] > 0] / full[0][p[0] > 0].sum())


def test_the_lowest_temperature_is_greedy() -> None:
    """Dividing by it overflows, and the sum of the overflows is no number."""
    x = torch.tensor([[3.0, 5.0, -1e30, 4.999], [1.0, 1.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert torch.equal(Sampling(1e-300).probabilities(x), wanted)


def test_draws_follow_the_probabilities() -> None:
    x = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20_000, -1)
    draw = Sampling(0.7, top_k=3, generator=torch.Generator().manual_seed(0))
    counts = draw(x).bincount(minlength=4) / 20_000
    torch.testing.assert_close(counts, draw.probabilities(x)[0], atol=0.015, rtol=0)
    assert counts[3] == 0


BAD_PROMPTS = [
    ([], "no prompt"),
    ([[1], []], "prompt 1 is empty"),
    ([1, 2], "prompt 0 must be a list"),
    ([[[1]]], "prompt 0 must be a list"),
    ([[1.5]], "prompt 0 must hold int64"),
    ([[1], [31]], "0..30"),
    ([[-1]], "0..30"),
]


@pytest.mark.parametrize(("prompts", "message"), BAD_PROMPTS)
def test_bad_prompts(prompts: list[list[int]], message: str, model: Model) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(prompts, 2)


BAD_OPTIONS = [
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"temperature": -1.0}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_k": 0}, "top_k"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"prefill_chunk": 0}, "prefill_chunk"),
    ({"seed": 1, "generator": torch.Generator()}, "not both"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(options: dict[str, object], message: str, model: Model) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate([[1]], **{"max_new_tokens": 2, **options})  # type: ignore[arg-type]
