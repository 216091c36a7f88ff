"""What the kernels execute: rounded up to their tiles, with what they compute again.

Tiles are those that ship for an H100. Where there is no kernel the dense form runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..algebra import Count, ceil_div
from ..codegen.kernels import variants_of
from ..codegen.recurrences import unserved
from ..codegen.serve import Softmax, softmaxes
from ..primitives.attention import Attention
from ..primitives.base import Op
from ..primitives.part import Part, Workload
from ..primitives.recurrence import Delta, Recurrence
from .blocks import by_key, by_query

if TYPE_CHECKING:
    from ..kernels.attention.variant import Variant

ARCHITECTURE = "sm_90"
FLASH = 128
"""Queries and keys of a block of PyTorch's own attention, which does not say."""


def executed(op: Op, parts: list[Part], work: Workload, name: str) -> list[Count]:
    """FLOPs of each part in a pass: forward, training, backward or step."""
    flops = [part.backward if name == "backward" else part.forward for part in parts]
    found = [each.dense for each in flops]
    if name == "step":
        return found
    if isinstance(op, Recurrence) and unserved(op) is None:
        places = [place for place, part in enumerate(parts) if part.name == "recurrence"]
        return [_of_recurrence(op, work, name) if place in places else count
                for place, count in enumerate(found)]
    if not isinstance(op, Attention):
        return found
    places = [place for place, part in enumerate(parts) if part.name == "attention"]
    for place, softmax in zip(places, softmaxes(op), strict=True):
        own = _of_softmax(softmax, work, name)
        found[place] = found[place] if own is None else own
    return found


def _of_softmax(softmax: Softmax, work: Workload, name: str) -> Count | None:
    """None where plain PyTorch runs it."""
    training = name != "forward"
    route = softmax.route(training)
    if route.op == "eager":
        return None
    heads, (_, _, dim, value_dim) = softmax.heads, softmax.attention.shape()
    if route.op == "sdpa":
        blocks = by_query(work.length, FLASH, FLASH, None, FLASH, None)
        products = 3 * dim + 2 * value_dim if name == "backward" else dim + value_dim
        return 2 * work.batch * heads * blocks * FLASH * FLASH * products
    [variant] = variants_of(softmax, training)
    per_head = sum(_passes(variant, work, name), 0)
    return work.batch * heads * per_head


def _of_recurrence(op: Recurrence, work: Workload, name: str) -> Count:
    """Chunks are padded. A forward pass reads and writes the state, and in each chunk takes scores
    to what is written; the delta rule solves for that first. A backward pass runs it again, and
    takes twice as much."""
    from ..kernels.recurrence.variant import CHUNK

    _, value_heads, key_dim, value_dim = op.shape()
    key, value = op.features.width(key_dim), value_dim + (op.normalizer == "sum")
    delta = isinstance(op.update, Delta)
    per_token = (3 if delta else 2) * key * value
    per_token += CHUNK * (3 * key + 2 * value if delta else key + value)
    tokens = work.batch * ceil_div(work.length, CHUNK) * CHUNK
    return (3 if name == "backward" else 1) * 2 * tokens * value_heads * per_token


def _passes(variant: Variant, work: Workload, name: str) -> Iterator[Count]:
    """FLOPs of a query head. Forward: scores, and weights times values. Backward, by queries:
    scores again, dp and dq; by keys: scores and dp again, dk and dv."""
    from ..kernels.pieces import pieces

    dim, value_dim = (
        sum(piece.width for piece in pieces(size)) for size in (variant.head_dim, variant.value_dim)
    )
    size = work.bytes_per_element
    if name != "backward":
        yield _by_query(variant, work.length, "forward", size) * 2 * (dim + value_dim)
        return
    yield _by_query(variant, work.length, "backward_q", size) * 2 * (2 * dim + value_dim)
    yield _by_key(variant, work.length, size) * 4 * (dim + value_dim)


def _by_query(variant: Variant, length: Count, name: str, size: int) -> Count:
    """Pairs of the blocks that programs over queries visit."""
    from ..kernels.attention.intervals import SEGMENT
    from ..kernels.attention.tiles import choose

    tile = choose(name, variant, ARCHITECTURE, size)
    rows, keys = tile.own, tile.step
    if variant.intervals:
        extra = None if variant.budget is None else -(-variant.budget // keys)
        return rows * keys * by_query(length, rows, keys, variant.window, SEGMENT, extra)
    if variant.window is None or variant.strided:
        return rows * keys * by_query(length, rows, keys, None, keys, 0)
    extra = -(-variant.sinks // keys)
    return rows * keys * by_query(length, rows, keys, variant.window - 1, keys, extra)


def _by_key(variant: Variant, length: Count, size: int) -> Count:
    """Pairs of the blocks that programs over keys visit. What kept keys outside the window and
    sinks are seen by is taken as the forward pass has it, in blocks of the pass that gathers it."""
    from ..kernels.attention.tiles import choose

    tile = choose("backward_kv", variant, ARCHITECTURE, size)
    window = None if variant.strided else variant.window
    pairs = tile.own * tile.step * by_key(length, tile.step, tile.own, window)
    if not (variant.intervals or variant.sinks_apart):
        return pairs
    name = "backward_gathered" if variant.intervals else "backward_sinks"
    apart = choose(name, variant, ARCHITECTURE, size)
    slots = variant.budget if variant.intervals else variant.sinks
    queries, keys = apart.step, apart.own
    extra = None if slots is None else -(-slots // keys)
    assert variant.window is not None
    walk = (length, queries, keys, variant.window - 1, keys)
    return pairs + queries * keys * (by_query(*walk, extra) - by_query(*walk, 0))
