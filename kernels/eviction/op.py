"""Eviction under a budget, as the intervals in which keys are seen: an op torch can see through.

Shapes: z (B, G, T), B sequences (1 if packed), G KV heads, T tokens. Packed sequences lie one after
another, bounded by cu_seqlens (N + 1,). On CUDA the kernels of this folder run, elsewhere (and in
float64) reference.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..attention.intervals import NEVER, SEGMENT, Intervals
from ..loader import namespace
from . import reference

NAMESPACE = namespace(__name__)

MAX_BUDGET = 8192
"""Slots that one program can hold in its registers."""


def intervals(
    z: Tensor,
    *,
    window: int,
    budget: int | None,
    sinks: int = 0,
    floor: float = 0.0,
    cu_seqlens: Tensor | None = None,
) -> Intervals:
    """Which queries see each key, when tokens that leave the window compete for `budget` slots.

    z: (B, G, T) logits, compared in float32, without a gradient. A token competes if z > floor;
    higher ones stay, and of equal ones the earlier. The first `sinks` tokens of each sequence rank
    before all others, as does z = inf; NaN never competes. Without a budget all that compete stay.
    """
    _check(z, window, budget, sinks, cu_seqlens)
    death, kept, counts, snapshots, alive = _intervals(
        z.detach(), cu_seqlens, window, budget, sinks, floor
    )
    if budget is None:
        return Intervals(death, kept, counts, None, None)
    return Intervals(death, kept, counts, snapshots, alive)


def _check(
    z: Tensor, window: int, budget: int | None, sinks: int, cu_seqlens: Tensor | None
) -> None:
    """Refuse what the kernels cannot do. What cu_seqlens holds is looked at on the CPU alone:
    elsewhere a look would wait for the device."""
    if z.dim() != 3 or z.numel() == 0 or not z.is_floating_point():
        raise ValueError(f"z is (B, G, T) numbers, 1 or more, not {tuple(z.shape)} of {z.dtype}")
    if window < 1 or sinks < 0:
        raise ValueError(f"a window is 1 or more and sinks 0 or more, not {window} and {sinks}")
    if z.shape[-1] + window >= NEVER:
        raise ValueError(f"times of death are below {NEVER}: {z.shape[-1]} tokens and a window of "
                         f"{window} go beyond; nearest window {max(1, NEVER - 1 - z.shape[-1])}")
    if budget is not None and not 1 <= budget <= MAX_BUDGET:
        raise ValueError(f"budget is {budget}: the kernels serve 1 to {MAX_BUDGET}, nearest "
                         f"{min(max(budget, 1), MAX_BUDGET)}, or None for no bound")
    if budget is not None and sinks > budget:
        raise ValueError(f"{sinks} sinks do not fit a budget of {budget}; nearest {budget}")
    if cu_seqlens is None:
        return
    if z.shape[0] != 1:
        raise ValueError(f"packed sequences lie in one batch row, not in {z.shape[0]}")
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.is_floating_point():
        raise ValueError("cu_seqlens is (N + 1,) integers")
    if cu_seqlens.device != z.device:
        raise ValueError(
            f"cu_seqlens lies on {cu_seqlens.device}, z on {z.device}: move it, once for all layers"
        )
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        edges = cu_seqlens.tolist()
        if edges[0] != 0 or edges[-1] != z.shape[-1] or edges != sorted(edges):
            raise ValueError(f"cu_seqlens must rise from 0 to {z.shape[-1]}, not {edges[:8]}")


def _forward(
    z: Tensor,
    cu_seqlens: Tensor | None,
    window: int,
    budget: int | None,
    sinks: int,
    floor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of Intervals; without a budget the last two have no columns."""
    if z.is_cuda and z.dtype != torch.float64:
        from . import launch  # needs triton, which a machine without CUDA may lack

        return launch.intervals(z, window, budget, sinks, floor, cu_seqlens)
    death, kept, counts, snapshots, alive = reference.intervals(
        z, window, budget, sinks, floor, cu_seqlens, segment=SEGMENT
    )
    if snapshots is None or alive is None:
        snapshots, alive = death.new_empty(0), death.new_empty(0)
    return death, kept, counts, snapshots, alive


def _fake(
    z: Tensor,
    cu_seqlens: Tensor | None,
    window: int,
    budget: int | None,
    sinks: int,
    floor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, tokens = z.shape
    segments = -(-tokens // SEGMENT)

    def integers(*shape: int) -> Tensor:
        return z.new_empty(*shape, dtype=torch.int32)

    lead = (batch, heads)
    death, kept = integers(*lead, tokens), integers(*lead, tokens)
    counts = integers(*lead, segments + 1)
    if budget is None:
        return death, kept, counts, integers(0), integers(0)
    return death, kept, counts, integers(*lead, segments, budget), integers(*lead, segments)


_intervals = ops.define(
    f"{NAMESPACE}::eviction_intervals",
    "(Tensor z, Tensor? cu_seqlens, int window, int? budget, int sinks, float floor) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _fake,
)
