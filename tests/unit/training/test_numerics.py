"""The loop's steps against AdamW, clipping, schedule and losses written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mixerlang
from mixerlang.nn.sparsity import SparsityControl, budgets
from mixerlang.training import Corpus, Event, TrainConfig, train
from mixerlang.training.data import sample_blocks, spread_blocks
from mixerlang.training.events import Evaluated, Stepped
from mixerlang.training.sparsity import schedule

Make = Callable[..., nn.Module]
STEPS = 5
LTE = """\
model small {
  vocab = 256; dim = 16; context = 32
  layers = [attention(heads=2, keep=window(8) | learned(budget=4, sinks=1))]
}
"""


def nats(model: nn.Module, blocks: Tensor) -> Tensor:
    """Mean of -log p(next byte), from the definition."""
    log_p = model(blocks[:, :-1]).double().log_softmax(-1)
    return -log_p.gather(-1, blocks[:, 1:, None]).mean()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class HandWritten:
    """AdamW (Loshchilov and Hutter, 2019) with clipping, in plain arithmetic."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.weights = dict(model.named_parameters())
        self.config = config
        self.moments = {name: (torch.zeros_like(w), torch.zeros_like(w))
                        for name, w in self.weights.items()}

    @torch.no_grad()
    def step(self, t: int, lr: float) -> float:
        """The t-th step, from 1; the norm of the gradient before clipping."""
        norm = math.sqrt(sum(float(w.grad.double().square().sum()) for w in self.weights.values()))
        scale = min(1.0, self.config.clip / norm)
        one, two = self.config.betas
        for name, w in self.weights.items():
            g = w.grad * scale
            m, v = self.moments[name]
            m.mul_(one).add_((1 - one) * g)
            v.mul_(two).add_((1 - two) * g * g)
            decays = w.dim() >= 2 and "bias" not in name
            w.mul_(1 - lr * self.config.weight_decay * decays)
            w.sub_(lr * (m / (1 - one**t)) / ((v / (1 - two**t)).sqrt() + 1e-8))
            w.grad = None
        return norm


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


def rate(step: int) -> float:
    """Warmup of two steps to 0.01, then a cosine that ends at a tenth of it at step 4."""
    if step < 2:
        return 0.01 * (step + 1) / 2
    return 0.01 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - 2) / 2)) / 2)


def test_steps_equal_a_hand_written_loop(make_model: Make, corpus: Corpus) -> None:
    config = TrainConfig(steps=STEPS, batch=4, length=16, lr=0.01, warmup=2, clip=0.5, seed=3,
                         weight_decay=0.3, eval_batches=2)
    told: list[Event] = []
    ours, theirs = make_model(), make_model()
    train(ours, corpus, config, on_event=told.append)
    steps = [event for event in told if isinstance(event, Stepped)]
    hand = HandWritten(theirs, config)
    blocks = torch.Generator().manual_seed(config.seed)
    with seeded(config.seed):  # dropout
        for step, event in enumerate(steps):
            loss = nats(theirs.train(), sample_blocks(corpus.train, 4, 16, blocks))
            loss.backward()
            norm = hand.step(step + 1, rate(step))
            # Float32 against float64 sums, and five steps of rounding in another order.
            assert event.loss == pytest.approx(loss.item(), rel=1e-5)
            assert event.bits_per_byte == pytest.approx(loss.item() / math.log(2), rel=1e-5)
            assert event.gradient_norm == pytest.approx(norm, rel=1e-4)
            assert event.lr == pytest.approx(rate(step))
    assert len(steps) == STEPS and any(event.gradient_norm > config.clip for event in steps)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_validation_is_the_mean_over_its_tokens_without_dropout(
    make_model: Make, corpus: Corpus, config: TrainConfig
) -> None:
    model = make_model()
    told: list[Event] = []
    train(model, corpus, config, on_event=told.append)
    last = [event for event in told if isinstance(event, Evaluated)][-1]
    blocks = torch.cat(list(spread_blocks(corpus.valid, config.eval_batches, config.batch, 16)))
    with torch.no_grad():
        assert last.loss == pytest.approx(nats(model.eval(), blocks).item(), rel=1e-6)


def test_learned_eviction_trains_uncapped_with_its_price_and_validates_capped(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lte.mix").write_text(LTE)
    ours, theirs = (mixerlang.load(tmp_path / "lte.mix", seed=1) for _ in range(2))
    config = TrainConfig(steps=2, batch=4, length=32, eval_batches=1, sparsity_every=1, warmup=0)
    told: list[Event] = []
    train(ours, corpus, config, on_event=told.append)
    first, second = (event for event in told if isinstance(event, Stepped))
    before, after = (event for event in told if isinstance(event, Evaluated))
    hand, control = HandWritten(theirs, config), SparsityControl(budgets(theirs), schedule(config))
    blocks = torch.Generator().manual_seed(config.seed)
    with seeded(config.seed):
        for step, event in enumerate((first, second)):
            batch = sample_blocks(corpus.train, 4, 32, blocks)
            logits, aux = theirs.train()(batch[:, :-1], return_aux=True)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            price = control.loss(aux)
            (loss + price).backward()
            hand.step(step + 1, event.lr)
            control.update(aux)
            assert event.loss == pytest.approx(loss.item(), rel=1e-5)
            assert event.sparsity_loss == pytest.approx(price.item(), rel=1e-4)
    assert first.sparsity_loss == 0 < second.sparsity_loss
    (batch,) = spread_blocks(corpus.valid, 1, 4, 32)
    with torch.no_grad(), seeded(0):
        uncapped = nats(without_dropout(theirs.train()), batch).item()
        capped = nats(theirs.eval(), batch).item()
    assert after.loss == pytest.approx(capped, rel=1e-5)
    assert after.loss != pytest.approx(uncapped, rel=1e-5)
    assert before.kept.keys() == budgets(theirs).keys()
