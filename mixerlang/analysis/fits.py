"""How long a context fits in the memory of a machine."""

from __future__ import annotations

from ..algebra import longest
from .report import Analysis
from .units import binary


def fitting(analysis: Analysis, most: int) -> int | None:
    """The longest context of `batch` sequences whose weights, cache and logits of a step take no
    more than `most` bytes: None where any does, 0 where none does."""
    peak = analysis.memory_formulas["peak_bytes.decode"]
    return longest(peak, most, "L", {"B": analysis.batch})


def fitting_line(analysis: Analysis, most: int) -> str:
    found = fitting(analysis, most)
    sequences = "a sequence" if analysis.batch == 1 else f"{analysis.batch:,} sequences"
    said = "of any length" if found is None else f"of up to {found:,} tokens"
    if found == 0:
        weights = binary(analysis.weight_bytes)
        return f"{binary(most)} are too few: the weights of {analysis.model} take {weights}"
    return f"{binary(most)} hold {analysis.model} in {analysis.dtype} and {sequences} {said}"
