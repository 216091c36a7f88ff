"""How the recurrence's passes are cut, by GPU generation and bytes per element."""

from __future__ import annotations

from typing import Any

from .variant import Variant

ARCHITECTURES = ("sm_80", "sm_90")
PASSES = ("decays", "scores", "solve", "scan", "join", "reverse", "inside", "gradients")

Tile = dict[str, Any]
"""BLOCK_V (channels of v of a program, or of a turn of its loop), BLOCK_K (channels of k of a
program), num_warps, num_stages."""


def tiles(name: str, variant: Variant) -> dict[tuple[str, int], Tile]:
    """(GPU generation, bytes per element) -> what the pass is told at launch."""
    return {
        (target, size): choose(name, variant, target, size)
        for target in ARCHITECTURES
        for size in (2, 4)
    }


def choose(name: str, variant: Variant, target: str, size: int) -> Tile:
    """The tile of one pass."""
    half = size == 2
    few = 4 if half and target == "sm_90" else 8
    if name in ("decays", "solve"):
        return {"num_warps": 1 if name == "solve" else 4, "num_stages": 1}
    if name == "scores":
        return {"num_warps": 4 if half else 8, "num_stages": 2 if half else 1}
    if name == "join":
        warps, most = 8 if variant.delta else 4, 32 if target == "sm_90" else 16
        return {"BLOCK_V": width(variant.value_dim, most), "num_warps": warps, "num_stages": 1}
    if name == "inside":
        block = width(variant.value_dim, 64 if half else 32)
        return {"BLOCK_V": block, "num_warps": few, "num_stages": 2}
    if name == "gradients":
        most = 64 if half else 32
        block_k = width(variant.key_dim, most if target == "sm_90" else 32)
        block_v = width(variant.value_dim, most)
        warps, stages = few if variant.decay != "vector" else 8, 2 if half else 1
        return {"BLOCK_K": block_k, "BLOCK_V": block_v, "num_warps": warps, "num_stages": stages}
    return _of_chain(variant, target, size)


def _of_chain(variant: Variant, target: str, size: int) -> Tile:
    """Of the passes from chunk to chunk."""
    if size == 4:
        return {"BLOCK_V": 16, "num_warps": 8, "num_stages": 1}
    if variant.key_dim > 128 and (variant.decay == "vector" or target == "sm_80"):
        block = 32 if target == "sm_90" else 16
        return {"BLOCK_V": width(variant.value_dim, block), "num_warps": 8, "num_stages": 1}
    return {"BLOCK_V": width(variant.value_dim, 32), "num_warps": 4, "num_stages": 2}


def width(dim: int, most: int) -> int:
    """A power of two that holds `dim` channels, or `most` of them; 16 at least."""
    return min(most, max(16, 1 << (dim - 1).bit_length()))

