"""Launch the products of few rows on CUDA tensors; shapes as in kernels.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from ..launcher import Launcher, early
from . import kernels
from .cut import MOST_WEIGHTS, Cut, cut, padded


def linear(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], residual: Tensor | None = None
) -> Tensor:
    """x (M, IN) with every weight (OUT, IN), on top of a residual if any: (M, sum of OUT)."""
    rows, inputs = x.shape
    widths = [len(w) for w in weights]
    y = x.new_empty(rows, sum(widths))
    gaps = [None] * (MOST_WEIGHTS - len(weights))
    given = [*biases, *gaps] if biases else [None] * MOST_WEIGHTS
    launch, block = _linear(rows, inputs, tuple(widths), x.element_size(), early(x.device.index))
    blocks = sum(-(-width // block) for width in widths)
    apart = 0 if residual is None else residual.stride(0)
    launch((blocks,), x, *weights, *gaps, *given, residual, y, x.stride(0), apart)
    return y


def gated(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """silu(x gate^T) * (x up^T), of x (M, IN), gate and up (OUT, IN): (M, OUT)."""
    rows, inputs = x.shape
    y = x.new_empty(rows, len(gate))
    soon = early(x.device.index)
    launch, block = _gated(rows, inputs, len(gate), x.element_size(), soon)
    launch((-(-len(gate) // block),), x, gate, up, y, x.stride(0))
    return y


@cache
def _linear(
    rows: int, inputs: int, widths: tuple[int, ...], element: int, soon: bool
) -> tuple[Launcher, int]:
    """A launcher, and how many outputs a program of it takes."""
    work = cut(sum(widths), inputs, element)
    outs = [*widths, *[0] * (MOST_WEIGHTS - len(widths))]
    constants = {f"OUT{index}": width for index, width in enumerate(outs)}
    return _launcher("linear_few", constants, rows, inputs, work, soon), work.outputs


@cache
def _gated(rows: int, inputs: int, outputs: int, element: int, soon: bool) -> tuple[Launcher, int]:
    work = cut(outputs, inputs, element, matrices=2)
    return _launcher("linear_gated", {"OUT": outputs}, rows, inputs, work, soon), work.outputs


def _launcher(
    name: str, constants: dict[str, int], rows: int, inputs: int, work: Cut, soon: bool
) -> Launcher:
    shared = {
        "IN": inputs,
        "ROWS": rows,
        "PADDED_ROWS": padded(rows),
        "BLOCK_OUT": work.outputs,
        "BLOCK_IN": work.inputs,
        "EARLY": soon,
        "num_warps": work.warps,
        "launch_pdl": soon,
    }
    return Launcher(getattr(kernels, name), constants | shared)
