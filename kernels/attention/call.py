"""What a call of attention brings besides q, k and v, and which calls are refused.

Shapes: B sequences (1 if packed), T tokens, H query heads, G KV heads, C segments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .intervals import SEGMENT
from .variant import DTYPES, MAX_HEAD_DIM, Rule

MOST_TOKENS = 2**31 - 2**10
"""On the token axis: positions, rounded up to blocks, are 32-bit integers."""
MOST_SEQUENCES = 2**16 - 1
"""Along B: the second axis of a grid."""


class Extras(NamedTuple):
    """Tensors of a call; None where it brings none.

    score: (B, G, T), gets the straight-through gradient <dv[j], v[j]> and is not read otherwise.
    sink_logits: (H,), a logit that joins each softmax and carries no value. slopes: (H,), ALiBi's.
    cu_seqlens: (N + 1,) integers from 0 to T, where sequences are packed. The rest: `Intervals`.
    """

    score: Tensor | None = None
    sink_logits: Tensor | None = None
    slopes: Tensor | None = None
    cu_seqlens: Tensor | None = None
    death: Tensor | None = None
    kept: Tensor | None = None
    counts: Tensor | None = None
    snapshots: Tensor | None = None
    alive: Tensor | None = None


NOTHING = Extras()


def unpack(rest: tuple[Any, ...]) -> tuple[Extras, Rule]:
    """What follows q, k and v among an op's arguments."""
    count = len(Extras._fields)
    return Extras(*rest[:count]), Rule(*rest[count:])


def check(q: Tensor, k: Tensor, v: Tensor, extras: Extras, rule: Rule) -> None:
    """Raise ValueError for what no kernel serves, or would read beyond its tensors for."""
    problem = (
        rule.problem()
        or _shapes(q, k, v)
        or _places(q, k, v, extras)
        or _packing(q, extras.cu_seqlens)
        or _intervals(q, k, extras, rule)
        or _per_head(q, k, extras)
    )
    if problem:
        raise ValueError(problem)


def served(q: Tensor) -> bool:
    """Whether kernels run: on CUDA, for the dtypes that they serve; dense.py takes the rest."""
    return q.is_cuda and str(q.dtype).removeprefix("torch.") in DTYPES


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    if not q.dim() == k.dim() == v.dim() == 4:
        axes = f"{q.dim()}, {k.dim()} and {v.dim()} axes"
        return f"q, k and v are (B, T, heads, channels), not of {axes}"
    (batch, tokens, heads, channels), groups = q.shape, k.shape[2]
    if k.shape[:2] != (batch, tokens) or v.shape[:2] != (batch, tokens):
        return f"q, k and v share B and T: {_told(q, k, v)} do not"
    if v.shape[2] != groups or k.shape[3] != channels:
        return f"k and v share their heads, q and k their channels: {_told(q, k, v)} do not"
    if not (q.numel() and k.numel() and v.numel()):
        return f"every axis of q, k and v is 1 or more: {_told(q, k, v)} have one of 0"
    if heads % groups:
        return f"{groups} KV heads do not divide {heads} query heads"
    if tokens > MOST_TOKENS or batch > MOST_SEQUENCES:
        most = f"{MOST_TOKENS} tokens and {MOST_SEQUENCES} sequences"
        return f"B = {batch}, T = {tokens}: a call takes at most {most}; cut it into several"
    return None


def _told(*tensors: Tensor) -> str:
    shapes = [str(tuple(x.shape)) for x in tensors]
    return f"{', '.join(shapes[:-1])} and {shapes[-1]}"


def _places(q: Tensor, k: Tensor, v: Tensor, extras: Extras) -> str | None:
    """Devices, dtypes, and what the kernels serve of head dims."""
    if not q.dtype == k.dtype == v.dtype:
        return f"q, k and v differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}"
    if not q.is_floating_point():
        return f"q, k and v hold floating-point numbers, not {q.dtype}"
    for x in (k, v, *extras):
        if x is not None and x.device != q.device:
            return f"all tensors of a call lie on one device, not on {q.device} and {x.device}"
    widest = max(q.shape[3], v.shape[3])
    if served(q) and widest > MAX_HEAD_DIM:
        way_out = "cut the heads into more, or use torch's scaled_dot_product_attention"
        return f"heads of {widest} channels: the kernels serve 1 to {MAX_HEAD_DIM}; {way_out}"
    return None


def _packing(q: Tensor, cu_seqlens: Tensor | None) -> str | None:
    """What cu_seqlens holds is checked on the CPU alone: elsewhere a look would wait for the
    device."""
    if cu_seqlens is None:
        return None
    if q.shape[0] != 1:
        return f"packed sequences lie in one batch row, not in {q.shape[0]}"
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.is_floating_point():
        return "cu_seqlens is (N + 1,) integers"
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        edges = cu_seqlens.tolist()
        if edges[0] != 0 or edges[-1] != q.shape[1] or edges != sorted(edges):
            return f"cu_seqlens must rise from 0 to {q.shape[1]}, not {edges[:8]}"
    return None


def _intervals(q: Tensor, k: Tensor, extras: Extras, rule: Rule) -> str | None:
    if extras.death is None:
        return None
    if rule.window is None or rule.sinks or rule.rate != 1 or rule.strided:
        return "intervals need their window, and hold the sinks; rate and strided do not go along"
    expected = (q.shape[0], k.shape[2], q.shape[1])
    if extras.death.shape != expected:
        return f"intervals.death is (B, G, T) = {expected}, not {tuple(extras.death.shape)}"
    if (extras.snapshots is None) != (extras.alive is None):
        return "intervals have snapshots and alive, or neither"
    return _lists(expected, extras)


def _lists(expected: tuple[int, ...], extras: Extras) -> str | None:
    """What kernels read of the lists by the shapes that they should have."""
    *lead, tokens = expected
    segments = -(-tokens // SEGMENT)
    budget = 0 if extras.snapshots is None else extras.snapshots.shape[-1]
    shapes = {
        "death": expected,
        "kept": expected,
        "counts": (*lead, segments + 1),
        "snapshots": (*lead, segments, budget),
        "alive": (*lead, segments),
    }
    for name, shape in shapes.items():
        x = getattr(extras, name)
        if x is None and name in ("snapshots", "alive"):
            continue
        if x is None or x.shape != shape or x.dtype != torch.int32 or not x.is_contiguous():
            told = None if x is None else f"{tuple(x.shape)} of {x.dtype}"
            return f"intervals.{name} is {shape}, contiguous int32, not {told}"
    return None


def _per_head(q: Tensor, k: Tensor, extras: Extras) -> str | None:
    """Shapes of what stands beside heads."""
    for name in ("sink_logits", "slopes"):
        x = getattr(extras, name)
        if x is not None and x.shape != (q.shape[2],):
            return f"{name} holds one number for each of {q.shape[2]} heads, not {tuple(x.shape)}"
    score, expected = extras.score, (q.shape[0], k.shape[2], q.shape[1])
    if score is not None and score.shape != expected:
        return f"score is (B, G, T) = {expected}, not {tuple(score.shape)}"
    return None
