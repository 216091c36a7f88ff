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
from ..attention.packing import bounds
from ..launcher import Launcher
from .network import Network, precision
from .packing import Packed

RUNS = 2
"""Programs per multiprocessor that a layer's weight gradients are cut into, about."""

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
    layer: int | None = None,
    entries: Entries = (),
) -> tuple[Launcher, int]:
    """A pass (of one layer, where each has a kernel) with its constants, and how many programs of
    it run on a multiprocessor at a time where they take turns."""
    module = kernel(name, network)
    constants = {**module.TILES[architecture, dtype.itemsize], **dict(entries)}
    constants |= {"DROPPED": dropped, "PRECISION": precision(dtype.itemsize)}
    resident = constants.pop("PER_SM", 1)
    function = f"scorer_{name}" if layer is None else f"scorer_{name}{layer}"
    return Launcher(getattr(module, function), constants), resident


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
    """Cut `tokens` rows of each sequence into tiles, and have programs take turns at them."""
    network, dropped = call.network, call.dropped
    launch, resident = launcher("forward", network, k.dtype, architecture(k), dropped, None, tile)
    block = launch.constants["BLOCK"]
    step = block - 2 * (network.lookahead if dropped else network.halo)
    tiles = batch * network.heads * -(-tokens // step)
    programs = turns(tiles, network.heads, resident * multiprocessors(k))
    scratch = k.new_empty(2 * programs * network.scratch(block, dropped > 0))
    launch(
        (programs,),
        *(k, v, *packed, z, scratch, call.seed, *saved, call.starts, call.ends, *rings),
        *(*strides, *z.stride()[:2], tokens, tiles),
    )


def turns(tiles: int, heads: int, resident: int) -> int:
    """Programs that share the tiles: as many as run at a time, and each stays at one KV head."""
    return min(tiles, max(1, resident // heads) * heads)


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
    dkv, grads = backward_inputs(dz, k, packed, saved, call)
    parts = dkv[..., : k.shape[-1]], dkv[..., k.shape[-1] :]
    dk, dv = (
        part.contiguous() if other is None else part + other
        for part, other in zip(parts, others, strict=True)
    )
    return dk, dv, backward_weights(dz, k, v, saved, grads, call)


def backward_inputs(
    dz: Tensor, k: Tensor, packed: Packed, saved: list[Tensor], call: Call, tile: Entries = ()
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of k and v, (B, T, G, D + E), and of the sums in `saved`."""
    batch, tokens, heads, _ = k.shape
    dkv = k.new_empty(batch, tokens, heads, call.network.layers[0].inputs)
    grads = [torch.empty_like(x) for x in saved]
    launch, _ = launcher(
        "backward_inputs", call.network, k.dtype, architecture(k), call.dropped, None, tile
    )
    blocks = -(-tokens // (launch.constants["BLOCK"] - 2 * call.network.lookahead))
    launch(
        (batch * heads * blocks,),
        *(dz, *packed, call.seed, *saved, *grads, dkv, call.starts, call.ends, tokens),
    )
    return dkv, grads


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
    network = call.network
    runs = max(1, min(RUNS * multiprocessors(k) // (batch * heads), tokens // SHORTEST_RUN))
    partial = k.new_empty(batch * runs, network.places[-1], dtype=torch.float32)
    kind = ("backward_weights", network, k.dtype, architecture(k), call.dropped)
    for layer, cut in zip(network.layers, network.cuts, strict=True):
        launch, _ = launcher(*kind, layer.index, tile)
        blocks = -(-tokens // launch.constants["ROWS"])
        first, last = layer.index == 0, layer.index == len(saved) - 1
        launch(
            (batch * runs, cut.blocks, heads),
            *((k, v) if first else (saved[layer.index - 1],)),
            grads[layer.index],
            *((saved[-1], dz) if last else ()),
            *(call.seed, partial, call.starts, call.ends),
            *((*k.stride()[:3], *v.stride()[:3]) if first else ()),
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
