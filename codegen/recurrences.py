"""The kernels of a model's recurrences: which ones, rendered, and built ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..primitives.recurrence import (
    Additive,
    Compose,
    Delta,
    Feature,
    GatedRMSNorm,
    NoDecay,
    Recurrence,
    RMSNormOutput,
    Vector,
)
from .kernels import Source

if TYPE_CHECKING:
    from ..kernels.ahead import Job
    from ..kernels.recurrence.step_rule import StepRule
    from ..kernels.recurrence.variant import Variant


def unserved(recurrence: Recurrence) -> str | None:
    """Why plain PyTorch runs a bound layer on a GPU, if so."""
    from ..kernels.recurrence import step_rule as steps
    from ..kernels.recurrence import variant

    _, _, key_dim, value_dim = recurrence.shape()
    width = recurrence.features.width(key_dim)
    around = steps.unserved(
        _words(recurrence.features),
        _words(recurrence.values),
        rope=recurrence.position is not None,
        conv=recurrence.conv,
        key_dim=width,
    )
    decay = "vector" if isinstance(recurrence.decay, Vector) else "scalar"
    normalize = recurrence.normalizer == "sum"
    return around or variant.unserved(width, value_dim, normalize, decay)


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
    chunks = ahead.jobs(variant(recurrence), dtype, architecture) if dtype != "float32" else []
    return [*chunks, *_around(recurrence, dtype)]


def _around(recurrence: Recurrence, dtype: str) -> Iterator[Job]:
    """What stands before and after the chunks, and a step of one token."""
    from ..kernels.convolution.ahead import jobs as convolution
    from ..kernels.convolution.cut import Part
    from ..kernels.norm.gated_ahead import jobs as gated_norm
    from ..kernels.recurrence.step_ahead import job as step

    rule = step_rule(recurrence)
    if rule.conv:
        names = [name for name in "qkv" if name in rule.widths]
        parts = tuple(Part(*rule.part(name)) for name in names)
        yield from convolution(parts, rule.conv, dtype)
    if rule.output != "none":
        gate = rule.output in ("silu", "sigmoid")
        yield from gated_norm(rule.value_heads, rule.value_dim, gate, dtype)
    yield step(rule, dtype)


def step_rule(recurrence: Recurrence) -> StepRule:
    """What a step of a bound and served layer does, as nn/fused_recurrence.py plans it."""
    from ..kernels.recurrence.step_rule import StepRule, chain

    heads, value_heads, key_dim, value_dim = recurrence.shape()
    decay, update, output = recurrence.decay, recurrence.update, recurrence.output
    prepared = recurrence.position is not None
    maps = None if prepared else chain(_words(recurrence.features))
    activation, norm = maps or ("none", "none")
    value_maps = chain(_words(recurrence.values))
    assert value_maps is not None, "a layer that no kernel serves"
    takes = isinstance(update, Additive) and update.step
    return StepRule(
        heads,
        value_heads,
        recurrence.features.width(key_dim),
        value_dim,
        conv=recurrence.conv,
        activation=activation,
        norm=norm,
        value_activation=value_maps[0],
        decay=decay.form if isinstance(decay, Vector) else decay.word,
        temperature=decay.temperature if isinstance(decay, Vector) else 1.0,
        step="sigmoid" if update.gated else "decay" if takes else "none",
        step_scale=update.scale if isinstance(update, Delta) else 1.0,
        delta=isinstance(update, Delta),
        complement=recurrence.keys == "complement",
        normalize=recurrence.normalizer == "sum",
        skip=recurrence.skip,
        output=output.activation if isinstance(output, GatedRMSNorm) else output.word,
        eps=output.eps if isinstance(output, GatedRMSNorm | RMSNormOutput) else 1e-6,
        scale=recurrence.scale or key_dim**-0.5,
    )
