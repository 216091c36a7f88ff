"""What the kernels execute: rounded up to their tiles, with what they compute again."""

from __future__ import annotations

from collections.abc import Iterable

from ..algebra import Count
from ..primitives.base import Op
from ..primitives.part import Part, Workload, total


def executed(
    op: Op, parts: Iterable[Part], work: Workload, name: str
) -> tuple[Count, Count, Count]:
    """useful, executed and dense FLOPs of a pass."""
    flops = total(part.backward if name == "backward" else part.forward for part in parts)
    return flops.useful, flops.dense, flops.dense
