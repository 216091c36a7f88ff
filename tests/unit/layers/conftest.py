"""Layers made from terms of the language as the compiler makes them, and the calls of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixerlang.nn import (
    convolution,
    decay,
    features,
    ffn,
    operands,
    pointwise,
    position,
    recurrence,
    scan,
)
from mixerlang.nn.mixer import Cache, Context, Mixer
from mixerlang.nn.sequences import Sequences
from mixerlang.primitives.base import Op, Term

ROOMS = (convolution, decay, features, ffn, operands, pointwise, position, recurrence, scan)


def class_of(term: Term) -> type:
    """The class in nn/ that bears the term's name."""
    name = type(term).__name__
    return next(getattr(room, name) for room in ROOMS if hasattr(room, name))


def value_of(value: Any) -> Any:
    """An argument of a term as its layer takes it."""
    if isinstance(value, Term):
        arguments = {k: value_of(v) for k, v in value.arguments().items()
                     if k not in value.spec_only}  # fmt: skip
        return class_of(value)(**arguments)
    return tuple(map(value_of, value)) if isinstance(value, tuple) else value


def bound(term: Op, width: int) -> Op:
    """The term with what depends on the width filled in; a term of a test has no mistakes."""

    def report(code: str, span: object, message: str, *, help: str | None = None) -> None:
        raise AssertionError(f"{code}: {message}")

    term.check(report)
    return term.bind(width, report)


def layer_of(term: Op, width: int) -> nn.Module:
    term = bound(term, width)
    arguments = {k: value_of(v) for k, v in term.arguments().items() if k not in term.spec_only}
    layer: nn.Module = class_of(term)(width, **arguments)
    return layer


class Caller:
    """Calls a mixer as a model does, with a cache where asked for."""

    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer
        self.cache: Cache | None = None

    def start(self, x: Tensor, batch: int | None = None) -> None:
        batch = batch or x.shape[0]
        state = self.mixer.new_state(batch, None, x.dtype, x.device)
        self.cache = Cache({"": state}, torch.zeros(batch, dtype=torch.int64), None)

    def __call__(self, x: Tensor, cu_seqlens: list[int] | None = None) -> Tensor:
        starts = None if cu_seqlens is None else torch.tensor(cu_seqlens)
        seen = None if self.cache is None else self.cache.seen
        sequences = Sequences.of(x, starts, seen)
        y: Tensor = self.mixer(x, Context(sequences, self.cache))
        if self.cache is not None:
            self.cache.advance(sequences)
        return y


@pytest.fixture(name="layer_of")
def layer_of_fixture() -> Callable[[Op, int], nn.Module]:
    return layer_of


@pytest.fixture(name="bound")
def bound_fixture() -> Callable[[Op, int], Op]:
    return bound


@pytest.fixture(name="class_of")
def class_of_fixture() -> Callable[[Term], type]:
    return class_of


@pytest.fixture(name="Caller")
def caller_fixture() -> type[Caller]:
    return Caller


@pytest.fixture(name="value_of")
def value_of_fixture() -> Callable[[Any], Any]:
    return value_of
