"""Learned eviction in a run: found, driven to its budget, reported, and resumed exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mixerlang.nn.attention import Attention
from mixerlang.nn.keeps import Learned, Union, Window
from mixerlang.nn.mixer import Aux, Context
from mixerlang.nn.sequences import Sequences
from mixerlang.nn.sparsity import Schedule
from mixerlang.training import Corpus, TrainConfig, train
from mixerlang.training.events import Evaluated, Event, Kept
from mixerlang.training.sparsity import kept_fractions, schedule, sparsity_control

BUDGET = 6


class TinyEvicting(nn.Module):
    """One attention layer with learned eviction between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(256, 16)
            keep = Union((Window(8), Learned(budget=BUDGET, sinks=1)))
            self.mixer = Attention(16, heads=2, keep=keep)
            self.head = nn.Linear(16, 256)

    def forward(self, tokens: Tensor, return_aux: bool = False) -> Tensor | tuple[Tensor, Aux]:
        aux: Aux = {}
        context = Context(Sequences.of(tokens), aux=aux).child("mixer")
        x = self.embedding(tokens)
        logits: Tensor = self.head(x + self.mixer(x, context))
        return (logits, aux) if return_aux else logits


def test_long_runs_follow_the_paper_and_short_ones_hurry() -> None:
    assert schedule(TrainConfig(steps=100_000)) == Schedule()
    for steps in (20, 300, 1000, 8000):
        short = schedule(TrainConfig(steps=steps))
        assert short.start > Schedule().start
        assert short.every <= 32
        risen = short.start * short.grow ** (steps // 4 / short.every)
        assert steps < 100 or risen >= short.largest
    assert schedule(TrainConfig(steps=20)).every == 1
    assert schedule(TrainConfig(steps=20, sparsity_every=7)).every == 7
    assert schedule(TrainConfig(steps=100_000, sparsity_every=7)).every == 7


def test_a_model_without_learned_eviction_has_no_control(
    make_model: Callable[..., nn.Module],
) -> None:
    assert sparsity_control(make_model(), TrainConfig()) is None
    control = sparsity_control(TinyEvicting(), TrainConfig())
    assert control is not None
    assert control.budgets == {"mixer.branches.0": BUDGET}


def test_kept_tokens_are_counted_by_sequence_and_head() -> None:
    score = torch.tensor([[[0.1, -0.1, 0.2, 0.3], [-0.1, 0.0, -0.2, 0.3]]])
    final = torch.tensor([[True, True, True, False]])
    kept = kept_fractions({"lte": {"score": score, "final": final}, "other": {"loss": score}})
    assert kept.keys() == {"lte"}
    assert kept["lte"].tolist() == [[0.5, 0.0]]


def kept_in_run(corpus: Corpus, config: TrainConfig) -> list[Kept]:
    seen: list[Kept] = []

    def listen(event: Event) -> None:
        if isinstance(event, Evaluated):
            seen.append(event.kept["mixer.branches.0"])

    train(TinyEvicting(), corpus, config, on_event=listen)
    return seen


def test_heads_are_driven_to_their_budget_and_reported(corpus: Corpus) -> None:
    """They would keep nearly everything, if a kept token had no price."""
    config = TrainConfig(steps=200, batch=4, length=64, lr=2e-3, eval_every=20)
    free = kept_in_run(corpus, config.model_copy(update={"sparsity_every": 10**6}))
    assert min(free[-1].mean) > 0.8
    priced = kept_in_run(corpus, config)
    assert priced[0] == free[0]
    assert priced[0].budget == pytest.approx(BUDGET / 64)
    assert max(priced[-1].mean) < 1.5 * priced[-1].budget
    late = [part for kept in priced[6:] for part in kept.mean]
    assert sum(late) / len(late) == pytest.approx(priced[0].budget, abs=0.07)
    for kept in priced:
        bounds = zip(kept.least, kept.mean, kept.most, strict=True)
        assert all(low <= mean <= high for low, mean, high in bounds)


def test_resumed_equals_uninterrupted_with_its_prices(corpus: Corpus, tmp_path: Path) -> None:
    config = TrainConfig(steps=60, batch=2, length=32, lr=5e-3, sparsity_every=1, eval_every=60)
    whole, parted = TinyEvicting(), TinyEvicting()
    train(whole, corpus, config, directory=tmp_path / "whole")
    pausing = config.model_copy(update={"max_seconds": 1e-9})
    train(parted, corpus, pausing, directory=tmp_path / "parted")
    for limit in (0.05, None):
        config = config.model_copy(update={"max_seconds": limit})
        train(parted, corpus, config, directory=tmp_path / "parted", resume=True)
    sparsity = []
    for name in ("whole", "parted"):
        lines = map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
        sparsity.append([line["sparsity_loss"] for line in lines if line["event"] == "step"])
    assert sparsity[0] == sparsity[1]
    assert len(sparsity[0]) == 60
    assert max(sparsity[0]) > 0
    for a, b in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(a, b)
