"""Attention layers through the kernels' ops (their dense forms), against plain PyTorch."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixerlang.nn import backend
from mixerlang.nn.attention import Attention
from mixerlang.nn.keeps import (
    Blocks,
    ByHead,
    Cnn,
    Dilated,
    Evict,
    Full,
    GatedKeep,
    Keep,
    Learned,
    Sinks,
    Strided,
    Union,
    Window,
)
from mixerlang.nn.mixer import Aux, Cache, Context
from mixerlang.nn.norm import RMSNorm
from mixerlang.nn.position import Alibi
from mixerlang.nn.scorer import CnnScorer
from mixerlang.nn.sequences import Sequences

DIM = 12
LTE = Union((Window(9), Learned(4, sinks=2, scorer=Cnn(dropout=0.0))))
KEEPS = {
    "full": Full(),
    "window": Window(5),
    "sinks": Union((Window(4), Sinks(3))),
    "strided": Union((Window(3), Strided(4), Sinks(1))),
    "longer_than_all": Union((Window(10**6), Sinks(2))),
    "without_end": Window(2**31 - 1),
    "dilated_sinks": Union((Dilated(3, 2), Sinks(2))),
    "learned": LTE,
    "no_sinks": Union((Window(8), Learned(3, sinks=0, scorer=Cnn(dropout=0.0), capped=True))),
    "only_sinks_kept": Union((Window(8), Learned(2, sinks=2, scorer=Cnn(dropout=0.0)))),
    "norm": Union((Window(4), Evict("norm", 3))),
    "norm_alone": Evict("norm", 1),
    "random": Union((Window(4), Evict("random", 3))),
    "by_head": ByHead((Window(3), LTE, Window(3))),
    "half": ByHead((Blocks(3, top=2), LTE, Blocks(3, top=2))),
    "gated": GatedKeep((Window(3), Full())),
}
RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "alibi": {"position": Alibi()},
    "rest": {"softcap": 4.0, "sink_logits": True, "qk_norm": RMSNorm(), "bias": True},
}
CASES = [
    (keep, rule) for keep in KEEPS for rule in RULES
    if rule == "plain" or keep in ("full", "sinks", "dilated_sinks", "learned", "by_head")
]  # fmt: skip


def layer(keep: Keep, **options: Any) -> Attention:
    torch.manual_seed(0)
    sizes = {"heads": 6, "kv_heads": 3, "head_dim": 8, "value_dim": 8} | options
    made = Attention(DIM, keep=keep, **sizes).double()
    for module in made.modules():
        if isinstance(module, CnnScorer):  # it starts by keeping everything: let it choose
            torch.nn.init.zeros_(module.proj.bias)
    return made


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, DIM, generator=generator, dtype=torch.float64)


def new_cache(made: Attention, batch: int, max_length: int | None = 64) -> Cache:
    state = made.new_state(batch, max_length, torch.float64, torch.device("cpu"))
    return Cache({"": state}, torch.zeros(batch, dtype=torch.int64), max_length)


def run(
    made: Attention,
    x: Tensor,
    cache: Cache | None = None,
    lengths: list[int] | None = None,
    aux: Aux | None = None,
) -> Tensor:
    starts = None if lengths is None else torch.tensor([0, *lengths]).cumsum(0)
    sequences = Sequences.of(x, starts, None if cache is None else cache.seen)
    y: Tensor = made(x, Context(sequences, cache, aux))
    if cache is not None:
        cache.advance(sequences)
    return y


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    with backend.forced("kernels"):
        yield


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-7)


# ------------------------------------------------------------------------- without a cache


@pytest.mark.parametrize(("keep", "rule"), CASES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("lengths", [None, [1, 20, 9]], ids=["rows", "packed"])
def test_same_outputs_reports_and_gradients(
    keep: str, rule: str, training: bool, lengths: list[int] | None
) -> None:
    made = layer(KEEPS[keep], **RULES[rule]).train(training)
    x, up = noise(2, 30), noise(2, 30, seed=1)
    if lengths is not None:
        x, up = x[:1], up[:1]
    results = []
    for way in ("eager", "kernels"):
        made.zero_grad()
        leaf, aux = x.clone().requires_grad_(), {}
        with backend.forced(way):
            y = run(made, leaf, lengths=lengths, aux=aux)
            reports = [tensor.clone() for path in sorted(aux) for tensor in aux[path].values()]
            scores = [report["score"] * report["final"][:, None] for report in aux.values()]
            ((y * up).sum() + sum(score.square().sum() for score in scores)).backward()
        gradients = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
        results.append((y, leaf.grad, reports, gradients))
    (y, dx, reports, gradients), (y_, dx_, reports_, gradients_) = results
    close(y_, y)
    close(dx_, dx)
    for (score, last), (score_, last_) in zip(pairs(reports), pairs(reports_), strict=True):
        assert torch.equal(last, last_)
        close(score_ * last_[:, None], score * last[:, None])
    assert gradients_.keys() == gradients.keys()
    for name, gradient in gradients_.items():
        close(gradient, gradients[name])


def pairs(reports: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(reports[::2], reports[1::2], strict=True))


def test_the_same_dropout_again_and_none_in_eval() -> None:
    """The seed comes from torch's own generator, as checkpointing needs it."""
    made = layer(Union((Window(9), Learned(4, scorer=Cnn(dropout=0.4))))).train()
    scores = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        aux: Aux = {}
        run(made, noise(1, 40), aux=aux)
        scores.append(next(iter(aux.values()))["score"])
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    before = torch.get_rng_state()
    run(made.eval(), noise(1, 40))
    assert torch.equal(before, torch.get_rng_state())


def test_checkpointing_drops_the_same_out() -> None:
    made = layer(Union((Window(9), Learned(4, scorer=Cnn(dropout=0.4))))).train()
    gradients = []
    for call in (run, partial(checkpoint, run, use_reentrant=False)):
        made.zero_grad()
        torch.manual_seed(7)
        call(made, noise(1, 40).requires_grad_()).square().sum().backward()
        gradients.append([p.grad.clone() for p in made.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(made.parameters()))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


# ----------------------------------------------------------------------------- with a cache


@pytest.mark.parametrize(("keep", "rule"), CASES)
@torch.no_grad()
def test_a_cache_is_the_whole_call(keep: str, rule: str) -> None:
    """Prefills, chunks after earlier tokens, and steps of one and several tokens."""
    made = layer(KEEPS[keep], **RULES[rule]).eval()
    x = noise(2, 60)
    with backend.forced("eager"):
        wanted = run(made, x)
    for sizes in ([25, 14, 1, 2, 18], [1] * 11 + [12, 1, 9, 27], [3] * 20, [2, 58]):
        cache = new_cache(made, 2)
        close(torch.cat([run(made, part, cache) for part in x.split(sizes, dim=1)], 1), wanted)


@pytest.mark.parametrize(("keep", "rule"), CASES)
@torch.no_grad()
def test_rows_of_unequal_lengths(keep: str, rule: str) -> None:
    """Packed into an empty cache, packed again after that, then steps, then all together."""
    made = layer(KEEPS[keep], **RULES[rule]).eval()
    x, cache = noise(3, 64), new_cache(made, 3)
    counts = [[1, 20, 9], [12, 3, 1], [13, 1, 30]]
    seen, outs = [0, 0, 0], [[], [], []]
    for lengths in [*counts, None, None, "all"]:
        new = [1] * 3 if lengths is None else [10] * 3 if lengths == "all" else lengths
        parts = [x[row, at : at + n] for row, (at, n) in enumerate(zip(seen, new, strict=True))]
        if isinstance(lengths, list):
            y = run(made, torch.cat(parts)[None], cache, lengths)[0].split(lengths)
        else:
            y = run(made, torch.stack(parts), cache)
        for row, out in enumerate(y):
            outs[row].append(out)
        seen = [at + n for at, n in zip(seen, new, strict=True)]
    with backend.forced("eager"):
        for row, parts in enumerate(outs):
            close(torch.cat(parts), run(made, x[row : row + 1, : seen[row]])[0])


@pytest.mark.parametrize("keep", ["full", "sinks", "strided", "learned", "norm", "by_head"])
@torch.no_grad()
def test_rollback(keep: str) -> None:
    """Tokens that were taken back leave no trace."""
    made = layer(KEEPS[keep]).eval()
    x, wrong = noise(2, 50), noise(2, 50, seed=1)
    cache = new_cache(made, 2)
    span = min(2, *(branch.held.span for branch in made.branches))
    outs, at = [run(made, x[:, :17], cache)], 17
    while at < 50:
        keep_new = min(1 + at % 2, span, 50 - at)
        tokens = torch.cat([x[:, at : at + keep_new], wrong[:, at : at + span - keep_new]], 1)
        outs.append(run(made, tokens, cache)[:, :keep_new])
        cache.rollback(tokens.shape[1] - keep_new)
        at += keep_new
    with backend.forced("eager"):
        close(torch.cat(outs, 1), run(made, x))


@torch.no_grad()
def test_what_cannot_be_taken_back() -> None:
    made = layer(LTE).eval()
    cache = new_cache(made, 1)
    run(made, noise(1, 20), cache)
    cache.rollback(0)
    with pytest.raises(ValueError, match="cannot forget the tokens of its last call"):
        cache.rollback(1)
    run(made, noise(1, 1), cache)
    with pytest.raises(ValueError, match="the last call brought 1"):
        cache.rollback(2)
    cache.rollback(1)
    with pytest.raises(ValueError, match="the last call brought 0"):
        cache.rollback(1)


@torch.no_grad()
def test_a_cache_goes_the_way_it_was_made_for() -> None:
    made = layer(LTE).eval()
    x = noise(1, 30)
    wanted = run(made, x)
    for one, other in (("eager", "kernels"), ("kernels", "eager")):
        with backend.forced(one):
            cache = new_cache(made, 1)
        with backend.forced(other):
            close(torch.cat([run(made, part, cache) for part in x.split([20, 1, 9], 1)], 1), wanted)


def test_what_can_be_captured() -> None:
    """A step over a cache of plain PyTorch does work that only the host knows."""
    made, place = layer(LTE), torch.device("cpu")
    assert made.capture_problem(made.new_state(1, 64, torch.float32, place)) is None
    with backend.forced("eager"):
        state = made.new_state(1, 64, torch.float32, place)
    assert "plain PyTorch" in str(made.capture_problem(state))
    half = layer(KEEPS["half"])
    assert half.capture_problem(half.new_state(1, 64, torch.float32, place)) is not None


@torch.no_grad()
def test_rows_can_be_reordered() -> None:
    made = layer(LTE).eval()
    x, rows = noise(3, 30), torch.tensor([2, 0, 2])
    cache = new_cache(made, 3)
    run(made, x[:, :20], cache)
    cache.reorder(rows)
    close(run(made, x[rows, 20:], cache), run(made, x[rows])[:, 20:])


# ---------------------------------------------------------------------------- which way it goes


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1)
    monkeypatch.delenv("MIXERLANG_BACKEND")
    assert not backend.kernels(x)
    with backend.forced("kernels"):
        assert backend.kernels(x)
        with backend.forced("eager"):
            assert not backend.kernels(x)
        assert backend.kernels(x)
    assert "MIXERLANG_BACKEND" not in os.environ
    with pytest.raises(ValueError, match="eager or kernels, not fast"), backend.forced("fast"):
        pass
    monkeypatch.setenv("MIXERLANG_BACKEND", "triton")
    with pytest.raises(ValueError, match="MIXERLANG_BACKEND is eager or kernels, not triton"):
        backend.kernels(x)


def test_a_reason_once(caplog: pytest.LogCaptureFixture) -> None:
    backend._say.cache_clear()
    made = layer(KEEPS["half"]).eval()
    with caplog.at_level(logging.WARNING, "mixerlang.nn.backend"):
        for _ in range(2):
            run(made, noise(1, 9))
            new_cache(made, 1, max_length=None)
    assert [record.message for record in caplog.records] == [
        "attention in plain PyTorch: chosen blocks have no kernel yet",
        "a cache for attention in plain PyTorch: chosen blocks have no kernel yet",
    ]


def test_a_cache_of_everything_needs_a_size(caplog: pytest.LogCaptureFixture) -> None:
    backend._say.cache_clear()
    made = layer(Full()).eval()
    with caplog.at_level(logging.WARNING, "mixerlang.nn.backend"):
        cache = new_cache(made, 1, max_length=None)
    assert "new_cache(max_length=...)" in caplog.text
    with torch.no_grad():
        close(run(made, noise(1, 9), cache), run(made, noise(1, 9)))


@pytest.mark.parametrize(("keep", "rule"), [("learned", "alibi"), ("dilated_sinks", "plain")])
def test_a_chunk_that_goes_in_steps_says_so(
    keep: str, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend._say.cache_clear()
    made = layer(KEEPS[keep], **RULES[rule]).eval()
    cache = new_cache(made, 1)
    with torch.no_grad(), caplog.at_level(logging.WARNING, "mixerlang.nn.backend"):
        run(made, noise(1, 12), cache)
        assert not caplog.records
        run(made, noise(1, 12), cache)
    assert [record.message for record in caplog.records] == [
        "a prefill after earlier tokens goes in steps: kept tokens with ALiBi or a dilated window"
    ]


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (ModuleNotFoundError("No module named 'triton'", name="triton"), "is not installed (pip"),
        (ModuleNotFoundError("No module named 'libx'", name="libx"), "cannot be imported: No mod"),
        (ImportError("libtriton.so: no such file"), "cannot be imported: libtriton.so: no such"),
        (RuntimeError("0 active drivers"), "cannot be imported: 0 active drivers"),
    ],
)
def test_a_missing_or_broken_triton_is_told_before_a_launch(
    problem: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "triton":
                raise problem

    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    backend._triton_problem.cache_clear()
    reason = backend._refusal(torch.device("cuda"), torch.bfloat16)
    backend._triton_problem.cache_clear()
    assert reason is not None
    assert reason.startswith(f"plain PyTorch runs: the kernels need triton, which {told}")


@pytest.mark.parametrize("keep", ["full", "learned", "norm"])
def test_one_graph(keep: str) -> None:
    """torch.compile sees through the layer, forward and backward."""
    made = layer(KEEPS[keep], qk_norm=RMSNorm()).train()
    x, results = noise(2, 30), []
    for call in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        made.zero_grad()
        y = call(made, x)
        y.square().sum().backward()
        results.append([y, *(p.grad.clone() for p in made.parameters() if p.grad is not None)])
    for one, other in zip(*results, strict=True):
        close(one, other)
