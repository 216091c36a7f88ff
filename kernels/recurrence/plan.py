"""Into how many stretches sequences are cut, so that no multiprocessor is idle; without triton."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .variant import CHUNK, Variant

SHORTEST = 8
"""Chunks that are worth a stretch of their own."""


def stretches(q: Tensor, packed: bool, variant: Variant) -> int:
    """How many each sequence of q (N, T, H, K) is cut into; packed ones are left whole."""
    batch, tokens = q.shape[:2]
    chunks = -(-tokens // CHUNK)
    most = 1 if packed else stretch_count(variant, batch, chunks, multiprocessors(q))
    return -(-chunks // -(-chunks // most))


def stretch_count(variant: Variant, batch: int, chunks: int, processors: int) -> int:
    """Stretches that each sequence is cut into: as many as give each multiprocessor two programs,
    if one program per sequence, head and block of 32 channels leaves enough of them idle for what
    stretches cost (each is walked twice; with the delta rule once more for the identity)."""
    programs = batch * variant.value_heads * -(-variant.value_dim // 32)
    walks = -(-variant.key_dim // 128) + 1 if variant.delta else 1
    if programs * walks > processors:
        return 1
    return max(1, min(2 * processors // programs, chunks // SHORTEST))


def multiprocessors(x: Tensor) -> int:
    """Of x's device; one where there are none."""
    return _multiprocessors(x.device.index or 0) if x.device.type == "cuda" else 1


@cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count
