"""The object of `mixerlang analyze --json`."""

from __future__ import annotations

from typing import Any

from . import formulas, sharding
from .fits import fitting
from .kinds import Kind, kinds, outside
from .metrics import nested
from .report import SCHEMA, Analysis
from .roofline import Latency
from .sharding import Plan


def as_json(
    analysis: Analysis,
    latency: Latency | None = None,
    most: int | None = None,
    plan: Plan | None = None,
) -> dict[str, Any]:
    """Numbers of the model and its layers; `expressions` of the model, of each kind of layer and of
    what stands outside, in B, T and L (metrics.py). latency: times on a GPU are told too. most:
    bytes, for the longest context that fits in them. plan: of training on several GPUs."""
    total, memory = analysis.total.as_json(), nested(analysis.memory)
    found = {
        "schema": SCHEMA,
        "model": analysis.model,
        "params": {name: _plain(value) for name, value in analysis.params.items()},
        "batch": analysis.batch,
        "length": analysis.length,
        "dtype": analysis.dtype,
        "backend": analysis.backend,
        **total,
        **memory,
        "weight_bytes": analysis.weight_bytes,
        "layers": [layer.as_json() for layer in analysis.layers],
        "outside": {name: cost.as_json() for name, cost in analysis.outside.items()},
        "expressions": _expressions(analysis),
    }
    if latency is not None:
        found["latency"] = latency.as_json()
    if most is not None:
        found["fits"] = {"bytes": most, "length": fitting(analysis, most)}
    if plan is not None:
        found["sharded"] = sharding.as_json(analysis, plan)
    return found


def _expressions(analysis: Analysis) -> dict[str, Any]:
    total = {**analysis.formulas.total.values, **analysis.memory_formulas}
    return {
        "total": formulas.as_json(total),
        "kinds": [_of_kind(kind) for kind in kinds(analysis)],
        "outside": {kind.name: formulas.as_json(kind.formula.values) for kind in outside(analysis)},
    }


def _of_kind(kind: Kind) -> dict[str, Any]:
    return {
        "label": kind.name,
        "mixer": kind.mixer,
        "line": kind.line,
        "layers": list(kind.indices),
        **formulas.as_json(kind.formula.values),
    }


def _plain(value: object) -> object:
    """A param's value in JSON: numbers as they are, anything else as text."""
    return value if isinstance(value, bool | int | float) else str(value)
