"""How the recurrence's passes are cut, by GPU generation and bytes per element."""

from __future__ import annotations

from typing import Any

from .variant import Variant

ARCHITECTURES = ("sm_80", "sm_90")
PASSES = ("decays", "scores", "scan", "join", "reverse", "gradients")

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
    if name == "decays":
        return {"num_warps": 4, "num_stages": 1}
    if name == "scores":
        vector = variant.decay == "vector"
        return {"num_warps": 4 if size == 2 and not vector else 8, "num_stages": 1}
    if name == "join":
        return {"BLOCK_V": width(variant.value_dim, 32), "num_warps": 4, "num_stages": 1}
    wide = variant.key_dim > 128
    if name in ("scan", "reverse"):
        block = width(variant.value_dim, 32 if wide or size == 4 else 64)
        return {
            "BLOCK_V": block,
            "num_warps": 8 if size == 4 or wide else 4,
            "num_stages": 1 if wide and variant.decay == "vector" else 2,
        }
    if variant.decay == "vector":
        wide = True
    blocks = (64, 32) if size == 4 else (128, 64) if not wide else (64, 64)
    block_k, block_v = (width(dim, most) for dim, most in zip(_dims(variant), blocks, strict=True))
    return {"BLOCK_K": block_k, "BLOCK_V": block_v, "num_warps": 8, "num_stages": 2 - (size == 4)}


def width(dim: int, most: int) -> int:
    """A power of two that holds `dim` channels, or `most` of them; 16 at least."""
    return min(most, max(16, 1 << (dim - 1).bit_length()))


def _dims(variant: Variant) -> tuple[int, int]:
    return variant.key_dim, variant.value_dim
