"""How long the keys of each snapshot live, told beside it, so that blocks of them need no search.

Most keys in slots live on beyond the queries that list them: blocks of queries ask for the first
death among GRAIN of them, and where that is later than they are, hide nothing.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from functools import cache

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

from ..launcher import Launcher
from .intervals import GRAIN


def slot_deaths(death: Tensor, snapshots: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Deaths of the entries of `snapshots`, 0 beyond `alive`, (B, G, C, budget) int32; and the
    first of every GRAIN of these, (B, G, C, ceil(budget / GRAIN)) int32."""
    *lead, segments, budget = snapshots.shape
    slots = snapshots.new_empty(snapshots.shape)
    until = snapshots.new_empty(*lead, segments, -(-budget // GRAIN))
    launch = _launcher(budget)
    launch((alive.numel(),), death, snapshots, alive, slots, until, death.shape[-1], segments)
    return slots, until


@cache
def _launcher(budget: int) -> Launcher:
    width = max(GRAIN, triton.next_power_of_2(budget))
    constants = {"BUDGET": budget, "WIDTH": width, "GRAIN": GRAIN, "num_warps": 4}
    return Launcher(_slot_deaths, constants)


@triton.jit(do_not_specialize=["length", "segments"])
def _slot_deaths(
    death_ptr, snapshots_ptr, alive_ptr, slots_ptr, until_ptr,
    length, segments,
    BUDGET: tl.constexpr, WIDTH: tl.constexpr, GRAIN: tl.constexpr,
):  # fmt: skip
    """One program per snapshot."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, WIDTH)
    listed = entry < tl.load(alive_ptr + row)
    j = tl.load(snapshots_ptr + row * BUDGET + entry, mask=listed, other=0)
    death = tl.load(death_ptr + row // segments * length + j, mask=listed, other=0)
    tl.store(slots_ptr + row * BUDGET + entry, death, mask=entry < BUDGET)
    first = tl.min(death.reshape(WIDTH // GRAIN, GRAIN), 1)
    block = tl.arange(0, WIDTH // GRAIN)
    until_ptr += row * ((BUDGET + GRAIN - 1) // GRAIN)
    tl.store(until_ptr + block, first, mask=block * GRAIN < BUDGET)
