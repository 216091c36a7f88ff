"""Around a run: random numbers of its own, modes, Ctrl-C, and whose checkpoint it may take."""

from __future__ import annotations

import fcntl
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from .checkpoint import Manifest
from .config import FREE_ON_RESUME, TrainConfig
from .errors import CheckpointError, TrainingError


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators (dropout draws from them), and put them back afterwards."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval() mode, and then back in its own."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the run to stop after this step; a second one stops it at once.

    Only the main thread receives signals: elsewhere nothing ever interrupts.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """A folder that no other run writes to meanwhile; the claim ends with the process."""
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"another run is at work in {directory}") from None
        except OSError:  # a file system without locks
            pass
        yield


def identity_of(model: nn.Module, spec: str, corpus: str) -> dict[str, str]:
    """What must be equal for a checkpoint to fit: the spec, the weights' shapes, the text."""
    state = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    return {"spec": spec, "shapes": state.hexdigest(), "corpus": corpus}


_WHAT = {"spec": "another spec", "shapes": "a model of other shapes", "corpus": "another text"}


def require_same(
    path: Path, manifest: Manifest, config: TrainConfig, identity: dict[str, str]
) -> None:
    """Refuse a checkpoint that would go on to other digits than its own run."""
    differences = [
        f"it comes from {_WHAT[key]}"
        for key, value in identity.items()
        if manifest.identity.get(key) != value
    ]
    now = config.model_dump(mode="json")
    differences += [
        f"{name} was {manifest.config.get(name)} and is now {value}"
        for name, value in now.items()
        if name not in FREE_ON_RESUME and manifest.config.get(name) != value
    ]
    if differences:
        raise CheckpointError(f"{path} cannot be resumed: {'; '.join(differences)}")
