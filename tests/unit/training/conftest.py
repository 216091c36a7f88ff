"""A small model with the call signature of compiled ones, and a small real text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mixerlang.training import Corpus, TrainConfig, open_corpus


class TinyModel(nn.Module):
    """Bytes to logits through a GRU, with dropout so that random numbers matter in training."""

    def __init__(self, width: int = 32, vocab: int = 256, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(vocab, width)
            self.gru = nn.GRU(width, width, batch_first=True)
            self.norm = nn.LayerNorm(width)
            self.dropout = nn.Dropout(0.1)
            self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.gru(self.dropout(self.embedding(tokens)))
        return self.head(self.norm(hidden))


@pytest.fixture
def make_model() -> Callable[..., TinyModel]:
    return TinyModel


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return open_corpus("python-docs", limit=60_000)


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(
        steps=12, batch=4, length=16, lr=1e-2, eval_every=4, eval_batches=2, checkpoint_every=5
    )


@pytest.fixture(autouse=True)
def untouched_random_numbers() -> Iterator[None]:
    """A run has random numbers of its own: torch's global generator is as it was."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
