"""How the scorer's passes are cut, by GPU generation, bytes per element and widest layer."""

from __future__ import annotations

from typing import Any

from .network import Network

ARCHITECTURES = ("sm_80", "sm_90")

Tile = dict[str, Any]
"""BLOCK or ROWS (rows at once), num_warps; STAGES or num_stages of loops, CACHE of loads, maxnreg
(registers per thread); PER_SM: programs on a multiprocessor at a time, where that sets how many
there are."""


def tiles(name: str, network: Network) -> dict[tuple[str, int], Tile]:
    """(GPU generation, bytes per element) -> what the pass is told at launch."""
    return {
        (target, size): choose(name, network, target, size)
        for target in ARCHITECTURES
        for size in (2, 4)
    }


def choose(name: str, network: Network, target: str, size: int) -> Tile:
    """The tile of one pass."""
    if name == "pack":
        return {"BLOCK": 1024, "num_warps": 4}
    if name.endswith("_rolling"):
        return {"BLOCK": 64, "num_warps": 4, "num_stages": 3, "PER_SM": 2}
    if name == "backward_weights":
        rows = {"ROWS": 64 if size == 2 else 16, "num_stages": 2, "PER_SM": 2}
        if size == 4 or target == "sm_80":
            return rows | {"num_warps": 8}
        few = {"maxnreg": 168, "PER_SM": 3} if network.rolls(size) else {}
        return rows | {"num_warps": 4} | few
    wide = max(network.channels) > 64
    # One stage is wrong on Hopper in 16 bits (operands by way of registers, loops unrolled by the
    # assembler of CUDA 12.8): seen on the GPU; two stages and more were right in all tiles tried.
    tile: Tile = {"BLOCK": 64, "num_warps": 4, "STAGES": 2, "CACHE": ".ca"}
    if size == 4:
        # Products on the plain cores hold their factors in registers; tiles stay small.
        tile |= {"BLOCK": 32 if network.lookahead <= 8 else 64, "STAGES": 1, "CACHE": None}
    if wide or size == 4 or target == "sm_80":
        tile["num_warps"] = 8
    if name == "backward_inputs":
        return tile
    if not wide:
        tile["STAGES"] = 2
    if tile["num_warps"] == 4:
        return tile | {"PER_SM": 3, "maxnreg": 168}
    return tile | {"PER_SM": 2 if wide else 3}
