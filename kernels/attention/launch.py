"""Launch the rendered attention kernels on tensors.

Shapes: B sequences (1 if packed), T tokens, H query heads, G KV heads, D channels of q and k, E of
v. q (B, T, H, D), k (B, T, G, D), v (B, T, G, E), any strides as long as channels are adjacent;
o and do (B, T, H, E); lse (B, H, T) float32.

pairs (B, H, P) int64, T rounded up to ALIGNED: what the passes by key know of a query, in the low
half its lse * log2(e), in the high one its delta, <o, do> less the gradient of lse, as float32.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .. import loader
from ..launcher import Launcher
from ..sequences import bounds
from .call import NOTHING, Extras
from .slots import slot_deaths
from .variant import ALIGNED, Tile, Variant, precision

RUN = 1024
"""Queries, at least, whose share of the sinks' gradients one program sums."""
MOST_RUNS = 64


@cache
def kernel(name: str, variant: Variant) -> ModuleType:
    """One pass's rendered module."""

    def source() -> str:
        from .render import render  # absent from a folder that carries its rendered kernels

        return render(name, variant)

    return loader.kernel(__package__, variant.stem(name), source)


def launcher(
    name: str,
    variant: Variant,
    x: Tensor,
    tile: Tile | None = None,
    tf32: bool = False,
    wide: bool = False,
) -> Launcher:
    """A pass with its constants for tensors like x: the module's own tile for their GPU, unless
    another is asked for."""
    return _launcher(name, variant, x.dtype, architecture(x), gpu(x), tile, tf32, wide)


@cache
def _launcher(
    name: str,
    variant: Variant,
    dtype: torch.dtype,
    architecture: str,
    gpu: str,
    tile: Tile | None,
    tf32: bool,
    wide: bool,
) -> Launcher:
    module = kernel(name, variant)
    size = dtype.itemsize
    shipped = module.TILES[architecture, size]
    options = tile.options(name) if tile else module.TILES.get((gpu, size), shipped)
    rounding = precision(str(dtype).removeprefix("torch."), tf32)
    function = getattr(module, f"attention_{name}")
    gathers = {"WIDE": wide} if "WIDE" in function.arg_names else {}
    return Launcher(function, {**options, "PRECISION": rounding, **gathers})


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variant: Variant,
    extras: Extras = NOTHING,
    tile: Tile | None = None,
    tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """o (B, T, H, E) and lse."""
    q, k, v = map(adjacent, (q, k, v))
    batch, tokens, heads, _ = q.shape
    o = q.new_empty(batch, tokens, heads, variant.value_dim)
    lse = q.new_empty(batch, heads, tokens, dtype=torch.float32)
    launch = launcher("forward", variant, q, tile, tf32, wide(k, v))
    launch(
        grid(launch.constants["BLOCK_Q"], tokens, heads, batch),
        *(q, k, v, o, lse),
        *bounds(extras.cu_seqlens, tokens)[:1],
        *by_query(extras),
        *per_head(extras),
        *(extras.sink_logits.contiguous(),) if extras.sink_logits is not None else (),
        *strides(q, k, v, o),
        tokens,
    )
    return o, lse


def backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    dlse: Tensor | None,
    variant: Variant,
    extras: Extras = NOTHING,
    tf32: bool = False,
) -> tuple[Tensor, ...]:
    """dq, dk and dv, contiguous, from the gradients of o and (variant.lse_grad) lse; and the
    gradients of score and sink_logits, empty where there are none."""
    do, q, k, v = map(adjacent, (do, q, k, v))
    dq, pairs = backward_q(do, q, k, v, o, lse, dlse, variant, extras, tf32=tf32)
    dk, dv, dscore = backward_kv(do, q, k, v, pairs, variant, extras, tf32=tf32)
    return dq, dk, dv, dscore, sinks_gradient(extras.sink_logits, lse, pairs)


def sinks_gradient(sink_logits: Tensor | None, lse: Tensor, pairs: Tensor) -> Tensor:
    """(H,), of the logits' dtype; empty where there are none. They carry no value: it is 0."""
    if sink_logits is None:
        return lse.new_empty(0)
    delta = pairs.view(torch.float32)[..., 1 : 2 * lse.shape[2] : 2]
    share = torch.exp(sink_logits.float()[:, None] - lse)
    return -(share * delta).sum((0, 2)).to(sink_logits.dtype)


def backward_q(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    dlse: Tensor | None,
    variant: Variant,
    extras: Extras = NOTHING,
    tile: Tile | None = None,
    tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """dq and pairs."""
    batch, tokens, heads, _ = q.shape
    dq = q.new_empty(q.shape)
    pairs = lse.new_empty(batch, heads, -(-tokens // ALIGNED) * ALIGNED, dtype=torch.int64)
    launch = launcher("backward_q", variant, q, tile, tf32, wide(k, v))
    launch(
        grid(launch.constants["BLOCK_Q"], tokens, heads, batch),
        *(q, k, v, o, do, lse),
        *(dlse.contiguous(),) if dlse is not None else (),
        *(dq, pairs),
        *bounds(extras.cu_seqlens, tokens)[:1],
        *by_query(extras),
        *per_head(extras),
        *strides(q, k, v, o, do, dq),
        *(pairs.stride(1), tokens),
    )
    return dq, pairs


def backward_kv(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Tensor,
    variant: Variant,
    extras: Extras = NOTHING,
    tile: Tile | None = None,
    tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """dk, dv, and the gradient of score, empty where there is none; `pairs` is backward_q's."""
    batch, tokens, kv_heads, _ = k.shape
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    dscore = q.new_empty(0) if extras.score is None else extras.score.new_empty(extras.score.shape)
    if variant.intervals:
        from .gathered import found

        found(do, q, k, v, pairs, dk, dv, variant, extras, tf32=tf32)
    packing = bounds(extras.cu_seqlens, tokens)
    parts, run = sinks_apart(do, q, k, v, pairs, packing, variant, extras, tf32)
    launch = launcher("backward_kv", variant, q, tile, tf32)
    launch(
        grid(launch.constants["BLOCK_K"], tokens, kv_heads, batch),
        *(q, k, v, do, pairs, dk, dv),
        *packing[:2],
        *(extras.death,) if variant.intervals else (),
        *(dscore,) if variant.score_grad else (),
        *per_head(extras),
        *parts,
        *strides(q, k, v, do, dk, dv),
        *(pairs.stride(1), tokens, *run),
    )
    return dk, dv, dscore


def sinks_apart(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Tensor,
    packing: tuple[Tensor, ...],
    variant: Variant,
    extras: Extras,
    tf32: bool,
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """What queries beyond the window give to the sinks, in runs of as many as the second says.

    Nothing without sinks. Without runs, the one program that owns the sinks would walk all queries
    while the others are long done.
    """
    if not variant.sinks_apart:
        return (), ()
    batch, tokens, kv_heads, _ = k.shape
    edges = () if extras.cu_seqlens is None else (extras.cu_seqlens.contiguous(),)
    sequences = tuple(len(x) - 1 for x in edges)
    run = RUN * -(-tokens // (MOST_RUNS * RUN))
    runs = -(-tokens // run) + sum(sequences)
    lead = (batch, runs, kv_heads, variant.sinks)
    dk, dv = (x.new_empty(*lead, x.shape[-1], dtype=torch.float32) for x in (k, v))
    launch = launcher("backward_sinks", variant, q, None, tf32)
    launch(
        (runs * kv_heads, -(-variant.sinks // launch.constants["BLOCK_K"]), batch),
        *(q, k, v, do, pairs, dk, dv, *packing[:1], *edges, *per_head(extras)),
        *(*strides(q, k, v, do), pairs.stride(1), tokens, run, *sequences),
    )
    return (*packing[2:], dk, dv), (run,)


def wide(*tensors: Tensor) -> bool:
    """Whether the tokens of a tensor lie further apart than 32 bits count."""
    return any(x.shape[1] * x.stride(1) >= 2**31 for x in tensors)


def by_query(extras: Extras) -> tuple[Tensor | None, ...]:
    """Deaths, the lists that blocks of queries find kept keys in, how many are in each, and how
    long these live."""
    if extras.death is None:
        return ()
    if extras.snapshots is None:
        return extras.death, extras.kept, extras.counts
    assert extras.alive is not None
    fates = slot_deaths(extras.death, extras.snapshots, extras.alive)
    return extras.death, extras.snapshots, extras.alive, *fates


def per_head(extras: Extras) -> tuple[Tensor, ...]:
    """ALiBi's slopes, where there are."""
    return () if extras.slopes is None else (extras.slopes.contiguous(),)


def grid(block: int, tokens: int, heads: int, batch: int) -> tuple[int, int]:
    """Programs of one pass: blocks of tokens times heads, then sequences."""
    return -(-tokens // block) * heads, batch


def strides(*tensors: Tensor) -> list[int]:
    """Of batch, token and head, tensor by tensor."""
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side, or its tokens too far apart for the
    32-bit offsets of a block."""
    return x if x.stride(3) == 1 and x.stride(1) < 2**24 else x.contiguous()


def architecture(x: Tensor) -> str:
    """Which column of the tile table serves x's device: sm_90 from Hopper on."""
    if x.device.type != "cuda":
        return "sm_90"
    return "sm_90" if _capability(x.device.index or 0) >= (9, 0) else "sm_80"


def gpu(x: Tensor) -> str:
    """x's GPU by its name, under which searched tiles are kept; none where it is on no GPU."""
    return _name(x.device.index or 0) if x.device.type == "cuda" else ""


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


@cache
def _name(index: int) -> str:
    return torch.cuda.get_device_name(index)
