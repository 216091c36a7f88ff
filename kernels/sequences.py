"""Where packed sequences start and end, told to each of their tokens without waiting for them."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

from .launcher import Launcher


def bounds(cu_seqlens: Tensor | None, tokens: int) -> tuple[Tensor, ...]:
    """Start, end and number of each token's sequence, (tokens,) int32; nothing without cu_seqlens.

    cu_seqlens: (N + 1,) integers from 0 to `tokens`.
    """
    if cu_seqlens is None:
        return ()
    places = torch.empty(3, tokens, dtype=torch.int32, device=cu_seqlens.device)
    blocks = -(-tokens // _launch.constants["BLOCK"])
    _launch((blocks,), cu_seqlens.contiguous(), places, tokens, len(cu_seqlens) - 1)
    return places.unbind()


@triton.jit(do_not_specialize=["length", "sequences"])
def sequence_bounds(edges_ptr, places_ptr, length, sequences, BLOCK: tl.constexpr):
    """The last edge that is not beyond a token, and the one after it, by bisection."""
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    low = tl.zeros([BLOCK], tl.int32)
    high = low + sequences
    step = sequences
    while step > 0:
        middle = (low + high) // 2
        behind = tl.load(edges_ptr + middle) <= token
        low = tl.where(behind, middle, low)
        high = tl.where(behind, high, middle)
        step = step // 2
    inside = token < length
    places_ptr += token
    tl.store(places_ptr, tl.load(edges_ptr + low).to(tl.int32), mask=inside)
    places_ptr += tl.cast(length, tl.int64)
    tl.store(places_ptr, tl.load(edges_ptr + low + 1).to(tl.int32), mask=inside)
    places_ptr += tl.cast(length, tl.int64)
    tl.store(places_ptr, low, mask=inside)


_launch = Launcher(sequence_bounds, {"BLOCK": 1024, "num_warps": 4})
