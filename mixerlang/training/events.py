"""What a run tells while it runs: to the log, and to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class Event:
    """Something happened after `step` optimizer steps."""

    kind: ClassVar[str]
    step: int

    def record(self) -> dict[str, Any]:
        """The line of the log."""
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Started(Event):
    """A run begins, or goes on after `step` steps. unigram_entropy: of the validation text."""

    kind: ClassVar[str] = "start"
    steps: int
    parameters: int
    corpus: str
    train_bytes: int
    valid_bytes: int
    unigram_entropy: float


@dataclass(frozen=True)
class Stepped(Event):
    """An optimizer step. loss: cross-entropy in nats per token; sparsity_loss comes on top."""

    kind: ClassVar[str] = "step"
    loss: float
    sparsity_loss: float
    bits_per_byte: float
    lr: float
    gradient_norm: float
    tokens_per_second: float
    peak_memory: int | None


@dataclass(frozen=True)
class Kept:
    """Part of a sequence that learned eviction keeps, by KV head, over validation sequences.

    budget: the part that the layer's budget is.
    """

    budget: float
    mean: tuple[float, ...]
    least: tuple[float, ...]
    most: tuple[float, ...]


@dataclass(frozen=True)
class Evaluated(Event):
    """The fixed validation set, in eval() mode. kept: by path of the mixer."""

    kind: ClassVar[str] = "eval"
    loss: float
    bits_per_byte: float
    best: bool
    kept: dict[str, Kept]


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint lies in `path`, relative to the folder of the run."""

    kind: ClassVar[str] = "checkpoint"
    path: str


Reason = Literal["finished", "interrupted", "time limit", "diverged"]


@dataclass(frozen=True)
class Stopped(Event):
    """The run is over, or pauses."""

    kind: ClassVar[str] = "stop"
    reason: Reason
    seconds: float


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """What a run came to. last: the last evaluation, if there was one."""

    step: int
    reason: Reason
    seconds: float
    last: Evaluated | None
    unigram_entropy: float
    directory: Path | None
