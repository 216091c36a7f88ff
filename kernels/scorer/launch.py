"""Launch the rendered scorer kernels on tensors.

Shapes: B sequences (1 if packed), T tokens, G KV heads, D channels of k and E of v. k (B, T, G, D)
and v (B, T, G, E) with any strides as long as channels are adjacent; z (B, G, T) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import loader
from ..launcher import Launcher
from ..sequences import bounds
from .network import Network, precision
from .packing import Packed

MOST_OFFSET = 2**30
"""Numbers that lie between two tokens of a program, at most: offsets have 32 bits."""

MOST_WAVES = 8
"""Programs that run one after another in the same place, at most, where rows walk."""

SHORTEST_RUN = 512
"""Rows that are worth a sum of their own."""

Entries = tuple[tuple[str, Any], ...]
"""Of a tile, in place of the rendered file's own."""


class Call(NamedTuple):
    """What the passes over one call's tokens share: `dropped` of 65,536 inputs of a convolution are
    dropped, by `seed`; starts, ends: of each token's sequence, (T,) int32, where packed."""

    network: Network
    dropped: int = 0
    seed: Tensor | None = None
    starts: Tensor | None = None
    ends: Tensor | None = None

    @classmethod
    def of(
        cls,
        network: Network,
        tokens: int,
        dropped: int = 0,
        seed: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Call:
        places = bounds(cu_seqlens, tokens)[:2]
        return cls(network, dropped, seed if dropped else None, *places)


@cache
def kernel(name: str, network: Network) -> ModuleType:
    """One pass's rendered module."""

    def source() -> str:
        from .render import render  # absent from a folder that carries its rendered kernels

        return render(name, network)

    return loader.kernel(__package__, network.stem(name), source)


@cache
def launcher(
    name: str,
    network: Network,
    dtype: torch.dtype,
    architecture: str,
    dropped: int = 0,
    entries: Entries = (),
) -> tuple[Launcher, int]:
    """A pass with its constants, and how many programs of it run on a multiprocessor at a time,
    where their number is chosen by that."""
    module = kernel(name, network)
    constants = {**module.TILES[architecture, dtype.itemsize], **dict(entries)}
    function = getattr(module, f"scorer_{name}")
    shared = {"DROPPED": dropped, "PRECISION": precision(dtype.itemsize)}
    constants |= {key: value for key, value in shared.items() if key in function.arg_names}
    resident = constants.pop("PER_SM", 1)
    return Launcher(function, constants), resident


def pack(
    weights: Sequence[Tensor], biases: Sequence[Tensor], network: Network, dtype: torch.dtype
) -> Packed:
    """As packing.pack, in one launch."""
    given = [x.contiguous() for x in (*weights, *biases)]
    heads, first = network.heads, given[0]
    to = first.new_empty(heads, network.weights, dtype=dtype)
    vectors = first.new_empty(heads, network.vectors, dtype=torch.float32)
    launch, _ = launcher("pack", network, dtype, architecture(first))
    numbers = max(network.weights, network.vectors)
    launch((-(-numbers // launch.constants["BLOCK"]), heads), *given, to, vectors)
    return Packed(to, vectors)


def forward(
    k: Tensor, v: Tensor, packed: Packed, call: Call, save: bool = False, tile: Entries = ()
) -> tuple[Tensor, list[Tensor]]:
    """z, and with `save` the sums before each layer's SiLU: (B, G, T, outputs) of k's dtype."""
    k, v = adjacent(k), adjacent(v)
    batch, tokens, heads, _ = k.shape
    z = k.new_empty(batch, heads, tokens, dtype=torch.float32)
    sums = [k.new_empty(batch, heads, tokens, outputs) for outputs in call.network.channels]
    _forward(
        *(k, v, z, packed, call, batch, tokens),
        saved=sums if save else [None] * len(sums),
        rings=(None, None, None, None),
        strides=(k.stride(0), k.stride(2), v.stride(0), v.stride(2)),
        tile=(("K_ROW", k.stride(1)), ("V_ROW", v.stride(1)), *tile),
    )
    return z, sums if save else []


def rows(
    k: Tensor, v: Tensor, z: Tensor, packed: Packed, network: Network, begin: Tensor, count: int
) -> None:
    """Logits of `count` positions from begin (N,) on, between rings; see op.rows."""
    _forward(
        *(k, v, z, packed, Call(network), len(k), count),
        saved=[None] * len(network.channels),
        rings=(begin, k.shape[2], v.shape[2], z.shape[2]),
        strides=(*k.stride()[:2], *v.stride()[:2]),
        tile=(("K_ROW", k.stride(2)), ("V_ROW", v.stride(2))),
    )


def _forward(
    k: Tensor,
    v: Tensor,
    z: Tensor,
    packed: Packed,
    call: Call,
    batch: int,
    tokens: int,
    *,
    saved: Sequence[Tensor | None],
    rings: tuple[Any, ...],
    strides: tuple[int, ...],
    tile: Entries,
) -> None:
    """Logits of `tokens` rows of each sequence, by the kernel that serves the network."""
    arguments = (*saved, call.starts, call.ends, *rings, *strides, *z.stride()[:2], tokens)
    if call.network.rolls(k.itemsize, architecture(k)):
        launch, resident = _launcher("forward_rolling", k, call, tile)
        widest = max(launch.constants["K_ROW"], launch.constants["V_ROW"])
        programs, run = _walk(launch, resident, batch, tokens, call.network, widest)
        launch((programs,), k, v, *packed, z, call.seed, *arguments, run)
        return
    launch, resident = _launcher("forward", k, call, tile)
    programs, tiles, scratch = _turns(launch, resident, batch, tokens, k, call)
    launch((programs,), k, v, *packed, z, scratch, call.seed, *arguments, tiles)


def _launcher(name: str, k: Tensor, call: Call, tile: Entries) -> tuple[Launcher, int]:
    """Of a pass over k, and how many of its programs the GPU runs at a time."""
    launch, resident = launcher(name, call.network, k.dtype, architecture(k), call.dropped, tile)
    return launch, resident * multiprocessors(k)


def _turns(
    launch: Launcher, resident: int, batch: int, tokens: int, k: Tensor, call: Call
) -> tuple[int, int, Tensor]:
    """Programs that take turns at tiles of each sequence, tiles, and what passes between layers."""
    network, dropout = call.network, call.dropped > 0
    block = launch.constants["BLOCK"]
    step = block - 2 * (network.lookahead if dropout else network.halo)
    tiles = batch * network.heads * -(-tokens // step)
    programs = turns(tiles, network.heads, resident)
    return programs, tiles, k.new_empty(2 * programs * network.scratch(block, dropout))


def turns(tiles: int, heads: int, resident: int) -> int:
    """Programs that share the tiles: as many as run at a time, and each stays at one KV head."""
    return min(tiles, max(1, resident // heads) * heads)


def _walk(
    launch: Launcher, resident: int, batch: int, tokens: int, network: Network, widest: int
) -> tuple[int, int]:
    """Programs whose rows walk, and how many strides each row does; from one token to the next,
    tensors are at most `widest` numbers apart."""
    rows, lanes = launch.constants["BLOCK"], batch * network.heads
    fewest = -(-tokens * max(widest, *network.channels) // MOST_OFFSET)
    run = run_of(tokens, lanes, rows, network.lookahead // network.phases, resident, fewest)
    return lanes * -(-tokens // (rows * run)), run


@cache
def run_of(tokens: int, lanes: int, rows: int, reach: int, resident: int, fewest: int = 1) -> int:
    """How many strides each row of a program walks, so that all are soon done: `rows` of them in
    each program, 2 * reach strides more for neighbours, `resident` programs at a time, at least
    `fewest` for each of the lanes."""

    def cost(blocks: int) -> int:
        return -(-lanes * blocks // resident) * (-(-tokens // (rows * blocks)) + 2 * reach)

    most = -(-tokens // rows)
    waves = (wave * resident // lanes for wave in range(1, MOST_WAVES + 1))
    blocks = min((min(most, max(fewest, wave)) for wave in waves), key=cost)
    return -(-tokens // (rows * blocks))


Others = tuple[Tensor | None, Tensor | None]
"""Gradients that k and v have from elsewhere: (B, T, G, D) and (B, T, G, E)."""


def backward(
    dz: Tensor,
    others: Others,
    k: Tensor,
    v: Tensor,
    packed: Packed,
    saved: list[Tensor],
    call: Call,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of k and v, with the others added, and the flat one of weights and biases."""
    k, v, dz = adjacent(k), adjacent(v), dz.contiguous()
    dk, dv, grads = backward_inputs(dz, others, k, v, packed, saved, call)
    return dk, dv, backward_weights(dz, k, v, saved, grads, call)


def backward_inputs(
    dz: Tensor,
    others: Others,
    k: Tensor,
    v: Tensor,
    packed: Packed,
    saved: list[Tensor],
    call: Call,
    tile: Entries = (),
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradients of k and v, with the others added, and of the sums in `saved`."""
    network, (batch, tokens, heads, _) = call.network, k.shape
    more = [None if other is None else adjacent(other) for other in others]
    dk, dv = (x.new_empty(x.shape) for x in (k, v))
    grads = [torch.empty_like(x) for x in saved]
    strides = (0 if x is None else x.stride(i) for x in more for i in range(3))
    arguments = (dz, *packed, call.seed, *saved, *grads, *more, dk, dv, call.starts, call.ends)
    if network.rolls(k.itemsize, architecture(k)):
        launch, resident = _launcher("backward_inputs_rolling", k, call, tile)
        widest = max(x.stride(1) for x in (dk, dv, *more) if x is not None)
        programs, run = _walk(launch, resident, batch, tokens, network, widest)
        launch((programs,), *arguments, *strides, tokens, run)
    else:
        launch, _ = _launcher("backward_inputs", k, call, tile)
        blocks = -(-tokens // (launch.constants["BLOCK"] - 2 * network.lookahead))
        launch((batch * heads * blocks,), *arguments, *strides, tokens)
    return dk, dv, grads


def backward_weights(
    dz: Tensor,
    k: Tensor,
    v: Tensor,
    saved: list[Tensor],
    grads: list[Tensor],
    call: Call,
    tile: Entries = (),
) -> Tensor:
    """Sums over runs of rows, added up in order: the same bits every time."""
    batch, tokens, heads, _ = k.shape
    launch, resident = _launcher("backward_weights", k, call, tile)
    cuts = sum(cut.blocks for cut in call.network.cuts)
    runs = max(1, min(resident // (batch * heads * cuts), tokens // SHORTEST_RUN))
    partial = k.new_empty(batch * runs, call.network.places[-1], dtype=torch.float32)
    blocks = -(-tokens // launch.constants["ROWS"])
    launch(
        (batch * runs, heads, cuts),
        *(k, v, *saved, *grads, dz, call.seed, partial, call.starts, call.ends),
        *(*k.stride()[:3], *v.stride()[:3]),
        *(tokens, -(-blocks // runs) * launch.constants["ROWS"], runs),
    )
    return partial.sum(0)


def adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def architecture(x: Tensor) -> str:
    """Which column of the tile table serves x's device: sm_90 from Hopper on."""
    if x.device.type != "cuda":
        return "sm_90"
    return "sm_90" if _properties(x.device.index or 0)[0] >= 9 else "sm_80"


def multiprocessors(x: Tensor) -> int:
    """Of x's device; one where there are none, so that programs take turns there too."""
    return _properties(x.device.index or 0)[1] if x.device.type == "cuda" else 1


@cache
def _properties(index: int) -> tuple[int, int]:
    found = torch.cuda.get_device_properties(index)
    return found.major, found.multi_processor_count
