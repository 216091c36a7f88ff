"""A small training loop on real text: readable, logged, resumed to the last digit."""

from ..nn.loss import cross_entropy
from .checkpoint import Checkpoints
from .config import TrainConfig
from .data import Corpus
from .errors import CheckpointError, CorpusError, DivergenceError, TrainingError
from .events import Event, Result
from .loop import train
from .optimizer import AdamW
from .sources import CORPORA, open_corpus

__all__ = [
    "CORPORA",
    "AdamW",
    "CheckpointError",
    "Checkpoints",
    "Corpus",
    "CorpusError",
    "DivergenceError",
    "Event",
    "Result",
    "TrainConfig",
    "TrainingError",
    "cross_entropy",
    "open_corpus",
    "train",
]
