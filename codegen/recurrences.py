"""The kernels of a model's recurrences: which ones, rendered, and built ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..primitives.recurrence import (
    Additive,
    Compose,
    Delta,
    Feature,
    NoDecay,
    Recurrence,
    Vector,
)
from .kernels import Source

if TYPE_CHECKING:
    from ..kernels.ahead import Job
    from ..kernels.recurrence.variant import Variant


def unserved(recurrence: Recurrence) -> str | None:
    """Why plain PyTorch runs a bound layer on a GPU, if so."""
    from ..kernels.recurrence import step_rule, variant

    _, _, key_dim, value_dim = recurrence.shape()
    width = recurrence.features.width(key_dim)
    around = step_rule.unserved(
        _words(recurrence.features),
        _words(recurrence.values),
        rope=recurrence.position is not None,
        conv=recurrence.conv,
        key_dim=width,
    )
    return around or variant.unserved(width, value_dim, recurrence.normalizer == "sum")


def _words(feature: Feature) -> list[str]:
    """The maps that it is, one after another."""
    parts = feature.parts if isinstance(feature, Compose) else (feature,)
    return [part.word for part in parts]


def variant(recurrence: Recurrence) -> Variant:
    """The specialisation of the kernels that a bound layer calls for."""
    from ..kernels.recurrence.variant import Variant

    heads, value_heads, key_dim, value_dim = recurrence.shape()
    decay, update = recurrence.decay, recurrence.update
    kind = "vector" if isinstance(decay, Vector) else "scalar"
    return Variant(
        heads,
        value_heads,
        recurrence.features.width(key_dim),
        value_dim + (recurrence.normalizer == "sum"),  # its sum is one more column of the state
        recurrence.scale or key_dim**-0.5,
        "none" if isinstance(decay, NoDecay) else kind,
        delta=isinstance(update, Delta),
        step=update.gated or (isinstance(update, Additive) and update.step),
    )


def sources(recurrence: Recurrence) -> Iterator[Source]:
    """What a bound layer launches that is rendered."""
    from ..kernels.recurrence import render

    if unserved(recurrence) is None:
        chosen = variant(recurrence)
        for name in render.passes(chosen):
            yield Source("recurrence", chosen.stem(name), render.render(name, chosen))


def jobs(recurrence: Recurrence, dtype: str, architecture: str) -> list[Job]:
    """Its kernels, to be built for a GPU that need not be here."""
    from ..kernels.recurrence import ahead

    if unserved(recurrence) is not None:
        return []
    return ahead.jobs(variant(recurrence), dtype, architecture)
