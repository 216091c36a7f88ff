"""Checkpoints: folders that appear whole or not at all, the last one and the best one.

    RUN/checkpoints/step-00000400/
        checkpoint.json      step, configuration, identity, best so far, and the files' hashes
        model.safetensors    the weights
        training.pt          optimizer, sparsity weights, random generators

A folder is written under another name and then renamed, so that the newest `step-*` is always
complete; older ones than the last and the best are removed after that.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from .errors import CheckpointError

_FORMAT = 1
_MANIFEST, _WEIGHTS, _TRAINING = "checkpoint.json", "model.safetensors", "training.pt"


@dataclass(frozen=True)
class Manifest:
    """The readable part of a checkpoint. best: step and validation loss of the best one so far."""

    step: int
    config: dict[str, Any]
    identity: dict[str, str]
    best: tuple[int, float] | None


class Checkpoints:
    """The checkpoints in the folder of a run."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def last(self) -> Path | None:
        """The newest checkpoint."""
        return max(self.folder.glob("step-*"), default=None)

    def best(self) -> Path | None:
        """The checkpoint with the lowest validation loss; the last one before any evaluation."""
        last = self.last()
        if last is None:
            return None
        best = read_manifest(last).best
        return last if best is None else self._path(best[0])

    def weights(self, best: bool = True) -> Path:
        """The weights of the best checkpoint, or of the last one."""
        found = self.best() if best else self.last()
        if found is None:
            raise CheckpointError(f"{self.folder.parent} holds no checkpoint")
        return found / _WEIGHTS

    def save(self, manifest: Manifest, model: nn.Module, training: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are neither the last nor the best."""
        target = self._path(manifest.step)
        if target.exists():  # the same step of the same run has the same numbers
            return target
        temporary = self.folder / f".writing-{manifest.step:08d}"
        try:
            self._write(temporary, manifest, model, training)
            temporary.rename(target)
            _sync(self.folder)
        except (OSError, RuntimeError, SafetensorError) as error:  # each writer has its own
            shutil.rmtree(temporary, ignore_errors=True)
            before = self.last()
            stays = "" if before is None else f", and {before.name} stays"
            raise CheckpointError(f"{target} cannot be written{stays}: {error}") from error
        self._prune(target, manifest.best)
        return target

    def _write(
        self, folder: Path, manifest: Manifest, model: nn.Module, training: dict[str, Any]
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_model(model, str(folder / _WEIGHTS))
        torch.save(training, folder / _TRAINING)
        _write_manifest(folder, manifest)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _prune(self, last: Path, best: tuple[int, float] | None) -> None:
        keep = {last} if best is None else {last, self._path(best[0])}
        stale = set(self.folder.glob("step-*")) | set(self.folder.glob(".writing-*"))
        for path in stale - keep:
            shutil.rmtree(path, ignore_errors=True)


def read_manifest(path: Path) -> Manifest:
    """What a checkpoint says of itself, its files not yet looked at."""
    raw = _read_json(path)
    try:
        best = raw["best"]
        best = None if best is None else (int(best[0]), float(best[1]))
        return Manifest(int(raw["step"]), dict(raw["config"]), dict(raw["identity"]), best)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path / _MANIFEST} is damaged: {error!r}") from error


def load(path: Path, model: nn.Module) -> dict[str, Any]:
    """Put the weights of a checkpoint into the model, and return the rest of the training."""
    verify(path)
    try:
        load_model(model, str(path / _WEIGHTS))
        training = torch.load(path / _TRAINING, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
    if not isinstance(training, dict):
        raise CheckpointError(f"{path / _TRAINING} does not hold the state of a training")
    return training


def verify(path: Path) -> None:
    """Compare the files of a checkpoint with the hashes that were taken when it was written."""
    hashes = _read_json(path).get("sha256")
    if not isinstance(hashes, dict):
        raise CheckpointError(f"{path / _MANIFEST} is damaged: it names no files")
    for name in (_WEIGHTS, _TRAINING):
        try:
            found = _sha256(path / name)
        except OSError as error:
            raise CheckpointError(f"{path / name} cannot be read: {error}") from error
        if found != hashes.get(name):
            raise CheckpointError(f"{path / name} is damaged: it changed after it was written")


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it last: it vouches for the files beside it."""
    for name in (_WEIGHTS, _TRAINING):
        _sync(folder / name)
    hashes = {name: _sha256(folder / name) for name in (_WEIGHTS, _TRAINING)}
    record = {"format": _FORMAT, **asdict(manifest), "sha256": hashes}
    (folder / _MANIFEST).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    _sync(folder / _MANIFEST)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads((path / _MANIFEST).read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path / _MANIFEST} is damaged: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise CheckpointError(f"{path / _MANIFEST} is not of format {_FORMAT}")
    return raw


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the operating system put a file or the names in a folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
