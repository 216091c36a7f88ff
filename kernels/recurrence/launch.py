"""Launch the rendered recurrence kernels on tensors.

Shapes: N sequences (one row of tokens if packed), T tokens, H heads, A value heads; q, k
(N, T, H, K), v (N, T, A, V), g and b (N, T, A), with any strides as long as channels are adjacent;
states (N, A, K, V) float32. C chunks in all.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import loader
from ..launcher import Launcher
from .chunks import Cut, Inputs
from .variant import CHUNK, Variant

Entries = tuple[tuple[str, Any], ...]
"""Of a tile, in place of the rendered file's own."""


class Faded(NamedTuple):
    """What `decays` gives, for a decay per key channel: q and k as they read the state before a
    chunk, and k as it writes into the one after, (N, T, H, K); what is left of the state (C, H, K);
    sums of the decay inside chunks (C, H, 64, K) int32."""

    q_read: Tensor
    k_read: Tensor
    k_write: Tensor
    left: Tensor
    sums: Tensor


class Inside(NamedTuple):
    """What `scores` gives. rows (C, A, 3, 64) float32: what of the state before a chunk is left at
    each token, what of a token is left at the chunk's end, b. scores and solve (C, A, 64, 64)."""

    rows: Tensor
    scores: Tensor
    solve: Tensor | None
    faded: Faded | None = None


@cache
def kernel(name: str, variant: Variant) -> ModuleType:
    """One pass's rendered module."""

    def source() -> str:
        from .render import render  # absent from a folder that carries its rendered kernels

        return render(name, variant)

    return loader.kernel(__package__, variant.stem(name), source)


@cache
def launcher(
    name: str, variant: Variant, dtype: torch.dtype, architecture: str, tile: Entries = ()
) -> Launcher:
    """A pass with its constants: the module's own tile, unless another is asked for."""
    module = kernel(name, variant)
    constants = {**module.TILES[architecture, dtype.itemsize], **dict(tile)}
    constants["PRECISION"] = "ieee" if dtype == torch.float32 else "tf32"
    constants["SOLVE_PRECISION"] = "tf32x3"
    function = getattr(module, f"recurrence_{name}")
    absent = {name for name in constants if name.isupper()} - {*function.arg_names}
    return Launcher(function, {name: constants[name] for name in constants if name not in absent})


def decays(inputs: Inputs, variant: Variant, cut: Cut, tile: Entries = ()) -> Faded:
    """What a decay per key channel makes of q and k."""
    q, k, _, g, _ = inputs
    assert g is not None
    q_read, k_write = q.new_empty(q.shape), k.new_empty(k.shape)
    k_read = k.new_empty(k.shape) if variant.delta else k_write
    by_chunk = (cut.chunks, variant.heads)
    left = q.new_empty(*by_chunk, variant.key_dim, dtype=torch.float32)
    sums = q.new_empty(*by_chunk, CHUNK, variant.key_dim, dtype=torch.int32)
    launch = launcher("decays", variant, q.dtype, architecture(q), tile)
    launch(
        (cut.chunks * variant.heads * -(-variant.key_dim // 64),),
        *(q, k, g, sums, q_read, k_read, k_write, left, cut.of_chunks),
        *strides(q, k, g),
        cut.tokens,
    )
    return Faded(q_read, k_read, k_write, left, sums)


def scores(
    inputs: Inputs, variant: Variant, cut: Cut, solution: Tensor | None = None, tile: Entries = ()
) -> Inside:
    """What happens inside chunks, all of them at once. solution: of the delta rule's system, if it
    is there already."""
    q, k, _, g, b = inputs
    square = (cut.chunks, variant.value_heads, CHUNK, CHUNK)
    rows = q.new_empty(*square[:2], 3, CHUNK, dtype=torch.float32)
    needed = variant.delta and solution is None
    system = q.new_empty(square, dtype=torch.float32) if needed else None
    faded = decays(inputs, variant, cut) if variant.decay == "vector" else None
    found = q.new_empty(square)
    launch = launcher("scores", variant, q.dtype, architecture(q), tile)
    launch(
        (cut.chunks * variant.value_heads,),
        *(q, k, faded.sums if faded else g, b, rows, found, system, cut.of_chunks),
        *(strides(q, k, b) if faded else strides(q, k, g, b)),
        cut.tokens,
    )
    if system is not None:
        solution = solve(system, q.dtype, variant)
    return Inside(rows, found, solution, faded)


def solve(system: Tensor, dtype: torch.dtype, variant: Variant, tile: Entries = ()) -> Tensor:
    """(I + system)^-1, below its diagonal, in `dtype`; overwrites system."""
    solution = torch.empty_like(system, dtype=dtype)
    launch = launcher("solve", variant, dtype, architecture(system), tile)
    launch((system.shape[0] * system.shape[1],), system, solution)
    return solution


def _readers(inputs: Inputs, inside: Inside) -> tuple[tuple[Tensor, ...], list[int]]:
    """q and k as the passes over chunks take them, and their strides."""
    q, k = inputs[:2]
    if inside.faded is None:
        return (q, k), strides(q, k)
    q, k, k_write, left, _ = inside.faded
    return (q, k, k_write, left), strides(q, k)


def scan(
    inputs: Inputs,
    inside: Inside,
    variant: Variant,
    cut: Cut,
    start: Tensor | None,
    *,
    output: bool = True,
    last: bool = False,
    save: bool = False,
    tile: Entries = (),
) -> tuple[Tensor | None, ...]:
    """From the state before each stretch on: o (N, T, A, V) and the state after each; with `save`
    what tokens wrote (N, T, A, V), unless that is v, and the state before each chunk (C, A, K, V),
    of q's dtype."""
    v, sizes = inputs.v, _sizes(variant)
    o = v.new_empty(v.shape) if output else None
    changed = variant.delta or variant.step
    written = v.new_empty(v.shape) if save and changed else None
    states = v.new_empty(cut.chunks, *sizes) if save else None
    final = _states(v, variant, cut) if last else None
    _scan(inputs, inside, variant, cut, start, o, written, states, final, tile=tile)
    return o, final, written, states


def carry(
    inputs: Inputs, inside: Inside, variant: Variant, cut: Cut, tile: Entries = ()
) -> tuple[Tensor, Tensor | None]:
    """What each stretch makes of a state of zero (S, A, K, V), with delta of the identity in K more
    columns; else which part of any state is left, (S, A) or (S, A, K), if not all."""
    v = inputs.v
    more = variant.key_dim if variant.delta else 0
    local = _states(v, variant, cut, more)
    fades = not variant.delta and variant.decay != "none"
    channels = (variant.key_dim,) * (variant.decay == "vector")
    fade = local.new_empty(*local.shape[:2], *channels) if fades else None
    _scan(inputs, inside, variant, cut, last=local, fade=fade, moves=more > 0, tile=tile)
    return local, fade


def _scan(
    inputs: Inputs,
    inside: Inside,
    variant: Variant,
    cut: Cut,
    start: Tensor | None = None,
    o: Tensor | None = None,
    written: Tensor | None = None,
    states: Tensor | None = None,
    last: Tensor | None = None,
    fade: Tensor | None = None,
    moves: bool = False,
    tile: Entries = (),
) -> None:
    v = inputs.v
    readers, places = _readers(inputs, inside)
    tile = (*tile, ("MOVES", moves))
    launch = launcher("scan", variant, v.dtype, architecture(v), tile)
    width = launch.constants["BLOCK_V"]
    blocks = -(-variant.value_dim // width) + (-(-variant.key_dim // width) if moves else 0)
    launch(
        (cut.sequences * cut.stretches * variant.value_heads * blocks,),
        *(*readers, v, *inside[:3], start, o, written, states, last, fade, cut.of_sequences),
        *(*places, *strides(v)),
        *(cut.tokens, cut.size),
    )


def join(
    local: Tensor,
    moves: Tensor | None,
    first: Tensor | None,
    variant: Variant,
    cut: Cut,
    dtype: torch.dtype,
    *,
    back: bool = False,
    last: bool = False,
    tile: Entries = (),
) -> tuple[Tensor, Tensor | None]:
    """The state before each stretch (S, A, K, V), from the one before the first, and with `last`
    the one after the last; back: of gradients, the other way. local: for each stretch what it makes
    of zero. moves: what it leaves of any state, or local as `carry` gives it; None: that is local.
    """
    starts = _states(local, variant, cut)
    final = starts.new_empty(cut.sequences, *_sizes(variant)) if last else None
    tile = (*tile, ("BACK", back))
    launch = launcher("join", variant, dtype, architecture(local), tile)
    blocks = -(-variant.value_dim // launch.constants["BLOCK_V"])
    if variant.delta:
        moves = (local if moves is None else moves)[..., variant.value_dim :]
    columns = (x.stride(2) if x is not None and x.dim() == 4 else 0 for x in (local, moves))
    launch(
        (cut.sequences * variant.value_heads * blocks,),
        *(local, moves, first, starts, final, cut.stretches, *columns),
    )
    return starts, final


def reverse(
    do: Tensor,
    dlast: Tensor | None,
    inputs: Inputs,
    inside: Inside,
    variant: Variant,
    cut: Cut,
    *,
    start: bool = False,
    save: bool = True,
    tile: Entries = (),
) -> tuple[Tensor | None, ...]:
    """From the gradient of the state after each stretch back: of what tokens wrote (delta: before
    the system is solved), and of the state after each chunk; with `start` of that before each
    stretch. save: whether the first two are wanted."""
    readers, places = _readers(inputs, inside)
    y = do.new_empty(do.shape) if save else None
    dstates = do.new_empty(cut.chunks, *_sizes(variant)) if save else None
    dstart = _states(do, variant, cut) if start else None
    launch = launcher("reverse", variant, do.dtype, architecture(do), tile)
    blocks = -(-variant.value_dim // launch.constants["BLOCK_V"])
    launch(
        (cut.sequences * cut.stretches * variant.value_heads * blocks,),
        *(*readers, do, *inside[:3], dlast, y, dstates, dstart, cut.of_sequences),
        *(*places, *strides(do)),
        *(cut.tokens, cut.size),
    )
    return y, dstates, dstart


def _sizes(variant: Variant) -> tuple[int, int, int]:
    """Of the states of one sequence."""
    return variant.value_heads, variant.key_dim, variant.value_dim


def _states(like: Tensor, variant: Variant, cut: Cut, more: int = 0) -> Tensor:
    """A state for each stretch, (S, A, K, V + more)."""
    *lead, columns = _sizes(variant)
    sizes = (cut.sequences * cut.stretches, *lead, columns + more)
    return like.new_empty(sizes, dtype=torch.float32)


class OfPairs(NamedTuple):
    """What `inside` gives: gradients of scores and system (C, A, 64, 64) and of v; those of g and b
    begun, with room for what blocks of key channels add."""

    scores: Tensor
    system: Tensor | None
    dv: Tensor
    dg: Tensor | None
    db: Tensor | None


def inside_gradients(
    do: Tensor,
    inputs: Inputs,
    inside: Inside,
    written: Tensor,
    y: Tensor,
    variant: Variant,
    cut: Cut,
    blocks: int,
    tile: Entries = (),
) -> OfPairs:
    """Gradients of all that happens inside chunks."""
    q, k, v, g, b = inputs
    vector = variant.decay == "vector"
    dscores = torch.empty_like(inside.scores)
    dsystem = torch.empty_like(dscores) if variant.delta else None
    dv = v.new_empty(v.shape) if variant.delta or variant.step else y
    dg = None if g is None else _gradient_of_decay(q, variant, blocks)
    parts = blocks if variant.delta else 1
    db = None if b is None else q.new_empty(parts, *b.shape, dtype=torch.float32)
    launch = launcher("inside", variant, q.dtype, architecture(q), tile)
    keys = () if vector else (q, k)
    decays = () if vector or g is None else (g,)
    launch(
        (cut.chunks * variant.value_heads,),
        *(*keys, v, *decays, do, inside.rows, written, y),
        *(dscores, dsystem, dv, dg, db, cut.of_chunks),
        *strides(*keys, v, *decays, do),
        cut.tokens,
    )
    return OfPairs(dscores, dsystem, dv, dg, db)


def gradients(
    do: Tensor,
    inputs: Inputs,
    inside: Inside,
    written: Tensor,
    states: Tensor,
    y: Tensor,
    dstates: Tensor,
    variant: Variant,
    cut: Cut,
    tile: Entries = (),
    inside_tile: Entries = (),
) -> tuple[Tensor | None, ...]:
    """Of q, k, v, g and b."""
    q, k = inputs[:2]
    batch, tokens = q.shape[:2]
    launch = launcher("gradients", variant, q.dtype, architecture(q), tile)
    blocks = -(-variant.key_dim // launch.constants["BLOCK_K"])
    begun = inside_gradients(do, inputs, inside, written, y, variant, cut, blocks, inside_tile)
    wide = torch.float32 if variant.group > 1 else q.dtype
    sizes = (batch, tokens, variant.value_heads, variant.key_dim)
    dq, dk = (q.new_empty(sizes, dtype=wide) for _ in range(2))
    sums = () if inside.faded is None else (inside.faded.sums,)
    launch(
        (cut.chunks * variant.value_heads * blocks,),
        *(q, k, *sums, do, inside.rows, written, y, states, dstates),
        *(begun.scores, begun.system, dq, dk, begun.dg, begun.db, cut.of_chunks),
        *strides(q, k, do),
        *(cut.tokens, batch * tokens * variant.value_heads),
    )
    dq, dk = (_by_key_head(x, variant).to(q.dtype) for x in (dq, dk))
    if inside.faded is not None and begun.dg is not None:
        return dq, dk, begun.dv, _by_key_head(begun.dg, variant), _summed(begun.db)
    return dq, dk, begun.dv, _summed(begun.dg), _summed(begun.db)


def _gradient_of_decay(q: Tensor, variant: Variant, blocks: int) -> Tensor:
    """Per channel, or per value head in parts that are left to add up."""
    batch, tokens = q.shape[:2]
    by_head = (batch, tokens, variant.value_heads)
    sizes = (*by_head, variant.key_dim) if variant.decay == "vector" else (blocks, *by_head)
    return q.new_empty(sizes, dtype=torch.float32)


def _summed(parts: Tensor | None) -> Tensor | None:
    """Over blocks of key channels."""
    if parts is None or len(parts) == 1:
        return None if parts is None else parts[0]
    return parts.sum(0)


def _by_key_head(x: Tensor, variant: Variant) -> Tensor:
    """Gradients of the value heads that share a head of q and k, added up."""
    if variant.group == 1:
        return x
    return torch.unflatten(x, 2, (variant.heads, variant.group)).sum(3)


def strides(*tensors: Tensor | None) -> list[int]:
    """Of batch, token and head, tensor by tensor."""
    return [s for x in tensors for s in ((0, 0, 0) if x is None else x.stride()[:3])]


def architecture(x: Tensor) -> str:
    """Which column of the tile table serves x's device: sm_90 from Hopper on."""
    if x.device.type != "cuda":
        return "sm_90"
    return "sm_90" if _capability(x.device.index or 0) >= (9, 0) else "sm_80"


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)
