"""Real text at byte level: a training and a validation split, and the blocks a run reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Generator, Tensor

from .errors import CorpusError

_CHUNK = 1 << 24


@dataclass(frozen=True)
class Corpus:
    """A text in two parts. train, valid: (bytes,) uint8, often memory-mapped."""

    name: str
    train: Tensor
    valid: Tensor

    @classmethod
    def split(cls, name: str, text: Tensor, train: float = 0.9, valid: float = 0.1) -> Corpus:
        """The first part of the text to train on, the part that follows it to validate on."""
        cut = int(len(text) * train)
        end = min(len(text), cut + max(1, round(len(text) * valid)))
        if not 0 < cut < end:
            raise CorpusError(f"{name}: {len(text)} bytes are too few to split")
        return cls(name, text[:cut], text[cut:end])

    @cached_property
    def unigram_entropy(self) -> float:
        """Bits per byte of the validation text: the least a model that sees no context can get."""
        return unigram_entropy(self.valid)

    @cached_property
    def digest(self) -> str:
        """Tells this text from others: sizes, and the first and last MiB of each split."""
        state = hashlib.sha256()
        for part in (self.train, self.valid):
            state.update(len(part).to_bytes(8, "little"))
            state.update(part[: 1 << 20].numpy().tobytes())
            state.update(part[-(1 << 20) :].numpy().tobytes())
        return state.hexdigest()

    def require(self, length: int) -> None:
        """Both splits must hold a block of `length` tokens and the token that follows it."""
        for part, text in (("training", self.train), ("validation", self.valid)):
            if len(text) < length + 1:
                raise CorpusError(
                    f"{self.name}: the {part} split has {len(text)} bytes and a block of length "
                    f"{length} needs {length + 1}: take a shorter length or more text"
                )


def map_file(path: Path, limit: int | None = None) -> Tensor:
    """The bytes of a file (at most `limit`) as a uint8 tensor, read when they are touched."""
    try:
        if path.is_dir():
            raise CorpusError(f"{path} is a directory: name one file of text")
        if not path.is_file():
            reason = "is not a regular file" if path.exists() else "does not exist"
            raise CorpusError(f"{path} {reason}")
        size = path.stat().st_size
        if size == 0:
            raise CorpusError(f"{path} is empty")
        with path.open("rb"):  # for the operating system's own words where it is not readable
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise CorpusError(f"{str(path)!r} cannot be read: {error}") from error
    size = size if limit is None else min(size, limit)
    # Private: pages are copied if ever written to, and the file never changes.
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)


def unigram_entropy(text: Tensor) -> float:
    """Entropy of the byte frequencies of a text (n,) uint8, in bits per byte."""
    counts = torch.zeros(256, dtype=torch.int64)
    for start in range(0, len(text), _CHUNK):
        counts += torch.bincount(text[start : start + _CHUNK], minlength=256)
    p = counts[counts > 0].double() / len(text)
    return max(0.0, float(-(p * p.log2()).sum()))  # of one byte alone it is 0, not -0


def sample_blocks(text: Tensor, batch: int, length: int, generator: Generator) -> Tensor:
    """(batch, length + 1) int64: contiguous blocks from random places."""
    starts = torch.randint(len(text) - length, (batch,), generator=generator)
    return _blocks(text, starts, length)


def spread_blocks(text: Tensor, count: int, batch: int, length: int) -> Iterator[Tensor]:
    """`count` batches (batch, length + 1) int64 of blocks at even distances, always the same."""
    last, blocks = len(text) - length - 1, count * batch
    for first in range(0, blocks, batch):
        starts = torch.arange(first, first + batch) * last // max(1, blocks - 1)
        yield _blocks(text, starts, length)


def _blocks(text: Tensor, starts: Tensor, length: int) -> Tensor:
    return text[starts[:, None] + torch.arange(length + 1)].long()
