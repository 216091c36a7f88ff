"""Bytes that a recurrence holds for decoding, in plain PyTorch and on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..algebra import Count
from .part import Workload
from .recurrence import Additive, Compose, Feature, Fixed, NoDecay, Recurrence, Vector

if TYPE_CHECKING:
    from ..kernels.recurrence.step_rule import StepRule

COUNTER = 8
"""Bytes of a head's number of tokens in its state (int64)."""


def bound_bytes(op: Recurrence, work: Workload) -> Count:
    """The states, and the convolution's last inputs."""
    tail = max(0, op.conv - 1) * op.conv_channels() * work.bytes_per_element
    return work.batch * (op.state_bytes() + tail)


def cache_bytes(op: Recurrence, work: Workload) -> Count:
    """The same; through kernels, in place of the tail the inputs of some last tokens."""
    held = kernel_cache_bytes(op, work) if work.kernels else None
    return bound_bytes(op, work) if held is None else held


def kernel_cache_bytes(op: Recurrence, work: Workload) -> Count | None:
    """Of `batch` sequences; None where plain PyTorch holds it."""
    rule = step_rule(op)
    if rule is None:
        return None
    state = 4 * rule.value_heads * rule.key_dim * (rule.value_dim + rule.normalize)
    rows = rule.ring * sum(rule.kept.values()) * work.bytes_per_element
    return work.batch * (state + rule.value_heads * COUNTER + rows)


def step_rule(op: Recurrence) -> StepRule | None:
    """What a step does of a bound layer, as far as its state depends on it."""
    from ..kernels.recurrence.step_rule import StepRule, unserved

    heads, value_heads, key_dim, value_dim = op.shape()
    width = op.features.width(key_dim)
    features, values = words(op.features), words(op.values)
    rope = op.position is not None
    if unserved(features, values, rope=rope, conv=op.conv, key_dim=width):
        return None
    return StepRule(
        heads,
        value_heads,
        width,
        value_dim,
        conv=op.conv,
        decay=_decay(op),
        step=_step(op),
        complement=op.keys == "complement",
        normalize=op.normalizer == "sum",
    )


def words(feature: Feature) -> list[str]:
    """The maps that it is, one after another."""
    parts = feature.parts if isinstance(feature, Compose) else (feature,)
    return [part.word for part in parts]


def _decay(op: Recurrence) -> str:
    match op.decay:
        case Vector(form=form):
            return form
        case NoDecay():
            return "none"
        case Fixed():
            return "fixed"
    return "scalar"


def _step(op: Recurrence) -> str:
    if op.update.gated:
        return "sigmoid"
    return "decay" if isinstance(op.update, Additive) and op.update.step else "none"
