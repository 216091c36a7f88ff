"""How the work of a convolution is cut into programs, and what its kernels are specialised on."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Any, NamedTuple

BLOCK = 512
"""Channels of a program, unless one head has more."""
WARPS = 4
UNROLL = 8
"""Tokens whose rows are loaded before the first of them is worked on."""
PROGRAMS = 2112
"""Sixteen for each of an H100's multiprocessors: runs are no shorter than that needs."""
LONGEST = 128
"""Tokens of a run at most, those read for the next run's sake included."""
MAX_KERNEL = 8
MAX_HEAD_DIM = 1024


class Part(NamedTuple):
    """Channels next to each other that are treated alike: the convolution, then `silu`, then each
    head of `head_dim` channels divided by its length (0: not)."""

    channels: int
    silu: bool = False
    head_dim: int = 0


class Cut(NamedTuple):
    """blocks: of channels, of each part (three, 0 for none). run: tokens of a program. runs: of a
    sequence. head_dim: channels of a head where a part is normed, else of a block."""

    blocks: tuple[int, ...]
    run: int
    runs: int
    head_dim: int
    block: int


@cache
def cut(parts: tuple[Part, ...], batch: int, tokens: int, kernel: int, halo: int) -> Cut:
    """halo: tokens after its own that a program reads."""
    head_dim = max((part.head_dim for part in parts), default=0)
    block = max(BLOCK, padded(head_dim))
    head_dim = head_dim or block
    own = block // padded(head_dim) * head_dim
    blocks = [-(-part.channels // own) for part in parts]
    lines = -(-PROGRAMS // (batch * sum(blocks)))
    wanted = -(-tokens // lines) + halo
    run = min(LONGEST, -(-max(wanted, 2 * UNROLL) // UNROLL) * UNROLL) - halo
    return Cut((*blocks, 0, 0)[:3], run, -(-tokens // run), head_dim, block)


def constants(parts: tuple[Part, ...], kernel: int, work: Cut, halo: int) -> dict[str, Any]:
    found: dict[str, Any] = {"KERNEL": kernel, "HEAD_DIM": work.head_dim}
    found |= {"PADDED": padded(work.head_dim), "BLOCK": work.block}
    found |= {"RUN": work.run, "ROWS": work.run + halo, "UNROLL": UNROLL}
    found["NORMED"] = any(part.head_dim for part in parts)
    found["DIVISOR"] = gcd(16, *(part.channels for part in parts))
    for index, part in enumerate((*parts, Part(0), Part(0))[:3]):
        found |= {
            f"BLOCKS_{index}": work.blocks[index],
            f"CHANNELS_{index}": part.channels,
            f"SILU_{index}": part.silu,
            f"NORM_{index}": part.head_dim > 0,
        }
    return found | {"num_warps": WARPS}


def padded(width: int) -> int:
    """The next power of two, 1 for nothing."""
    return 1 << max(width - 1, 0).bit_length()
