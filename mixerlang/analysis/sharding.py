"""Memory of training on several GPUs, as FSDP2 (`fully_shard` of each layer) shares it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .memory import logit_bytes
from .report import BYTES, Analysis
from .units import binary

MOMENTS = {"adamw": 2, "lion": 1, "sgd": 0}
"""Numbers per parameter that an optimizer keeps."""

IN_FLIGHT = 2
"""Layers whose weights are whole at a time: the one that runs, and the next."""


@dataclass(frozen=True)
class Plan:
    """gpus: that share weights, gradients and moments; each has a batch of its own. mixed: these
    in float32, and layers compute in the dtype of the analysis. checkpointed: of each layer only
    its input is kept for backward."""

    gpus: int = 1
    optimizer: str = "adamw"
    mixed: bool = False
    checkpointed: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.gpus <= 2**20:
            raise ValueError(f"{self.gpus} GPUs: from 1 to {2**20:,}")
        if self.optimizer not in MOMENTS:
            raise ValueError(f"optimizer is one of {', '.join(MOMENTS)}, not {self.optimizer}")


def parts(analysis: Analysis, plan: Plan) -> dict[str, int]:
    """Bytes per GPU at the peak of a step, by what takes them."""
    element, total = BYTES[analysis.dtype], analysis.total.parameters
    state = 4 if plan.mixed else element
    shared = -(-total // plan.gpus)
    kept = "activation_bytes_checkpointed" if plan.checkpointed else "activation_bytes"
    memory = {**analysis.memory, "activation_bytes": analysis.total.number("activation_bytes")}
    largest = max((layer.cost.parameters for layer in analysis.layers), default=0)
    whole = largest * (IN_FLIGHT * element + state) if plan.gpus > 1 else 0
    copies = total * element if plan.mixed and plan.gpus == 1 else 0  # autocast keeps casts
    tokens = analysis.batch * analysis.length
    logits = logit_bytes(analysis.graph, element, analysis.backend == "kernels")
    return {
        "weights": state * shared,
        "gradients": state * shared,
        "moments": MOMENTS[plan.optimizer] * state * shared,
        "whole layers": whole + copies,
        "activations": memory[kept],
        "logits": tokens * logits,
    }


def as_json(analysis: Analysis, plan: Plan) -> dict[str, Any]:
    found = parts(analysis, plan)
    return {
        "gpus": plan.gpus,
        "optimizer": plan.optimizer,
        "mixed": plan.mixed,
        "checkpointed": plan.checkpointed,
        "bytes_per_gpu": {name.replace(" ", "_"): size for name, size in found.items()},
        "peak_bytes": sum(found.values()),
    }


def sharding_lines(analysis: Analysis, plan: Plan) -> str:
    found = parts(analysis, plan)
    rows = {**found, "peak": sum(found.values())}
    column = max(map(len, rows))
    states = "float32" if plan.mixed else analysis.dtype
    gpus = "one GPU" if plan.gpus == 1 else f"each of {plan.gpus:,} GPUs under FSDP2"
    layers = ", layers checkpointed" if plan.checkpointed else ""
    return "\n".join([
        f"{analysis.model}: training on {gpus}, {plan.optimizer} in {states}{layers}",
        f"batch {analysis.batch:,} per GPU, length {analysis.length:,}, {analysis.dtype}; "
        "an estimate", "",
        *(f"{name:<{column}}  {binary(size):>9}" for name, size in rows.items()),
    ])  # fmt: skip
