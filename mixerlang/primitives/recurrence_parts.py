"""What a recurrence costs: chunk by chunk among new tokens, a state's read and write per step.

Shapes: H heads of q and k, A value heads, K channels of a mapped key, V of a value and of its
normalizer, L tokens of a chunk, C chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..algebra import Count, ceil_div, least, power_of_two, reached
from .part import Flops, Part, Workload, depthwise, elementwise, linear
from .recurrence import CHUNK, Delta, PlainOutput, Recurrence, Scalar, Vector


def parts(op: Recurrence, width: int, work: Workload) -> Iterator[Part]:
    """Of `length` new tokens, without a cache."""
    yield from _around(op, width, work)
    yield _core(op, work)


def step_parts(op: Recurrence, width: int, work: Workload) -> Iterator[Part]:
    """Of one more token; what the state holds does not matter."""
    one = work.one
    yield from _around(op, width, one)
    useful, dense = _recurrent_flops(op, one), _step_flops(op, one)
    moved, state = _moved(op, one), work.batch * op.state_bytes()
    forward = Flops(useful, dense)
    yield Part("step", forward, read=moved[0] + state, written=moved[1] + state)


def _around(op: Recurrence, width: int, work: Workload) -> Iterator[Part]:
    """Projections, convolutions, maps and the output's norm."""
    heads, value_heads, key_dim, value_dim = op.shape()
    element, values = work.bytes_per_element, value_heads * value_dim
    for inputs, outputs in op.projections(width):
        yield linear(f"{inputs} -> {outputs}", work, inputs, outputs)
    if op.conv:
        yield depthwise("conv", work, op.conv_channels(), op.conv, saved=op.conv_channels())
    maps, weights = 2 if op.keys == "linear" else 1, op.features.weights(heads, key_dim)
    if weights:
        flops = 2 * work.tokens * maps * weights
        forward = Flops(flops, flops)
        yield Part("features", forward, forward * 2, read=element * maps * weights)
    if not isinstance(op.output, PlainOutput):
        kept = work.tokens * (2 * element * values + 4 * value_heads)
        yield elementwise("output", work, 2 * values, values, saved=kept)


def _core(op: Recurrence, work: Workload) -> Part:
    """The recurrence itself. Kept for backward, as through kernels: what it reads and gives; states
    between chunks are made again."""
    chunked, alone = _chunked_flops(op, work), _step_flops(op, work)
    many = reached(work.length, 2)  # a single token goes as a step
    forward = _recurrent_flops(op, work)
    backward = many * (2 * chunked - _spared(op, work)) + (1 - many) * _alone_backward(op, work)
    read, written = _moved(op, work)
    return Part(
        "recurrence",
        Flops(forward, many * chunked + (1 - many) * alone),
        Flops(2 * forward, backward),
        read,
        written,
        saved=read + written,
    )


def _moved(op: Recurrence, work: Workload) -> tuple[Count, Count]:
    """Bytes of q, k, v, the decay and the step, and of o."""
    heads, value_heads, key_dim, value_dim = op.shape()
    element, keys = work.bytes_per_element, op.features.width(key_dim)
    gates = 4 * heads * key_dim if isinstance(op.decay, Vector) else 4 * value_heads
    gates += 4 * value_heads * op.update.gated
    inputs = element * (2 * heads * keys + value_heads * value_dim) + gates
    return work.tokens * inputs, work.tokens * element * value_heads * value_dim


# --------------------------------------------------------------------------------- as it is defined


def _state(op: Recurrence) -> tuple[int, int, int]:
    """A, K and V."""
    _, value_heads, key_dim, value_dim = op.shape()
    return value_heads, op.features.width(key_dim), value_dim + (op.normalizer == "sum")


def _recurrent_flops(op: Recurrence, work: Workload) -> Count:
    """A token's write into the state and read from it; with the delta rule what it holds for the
    key too."""
    value_heads, key, value = _state(op)
    return 2 * work.tokens * value_heads * key * value * (2 + isinstance(op.update, Delta))


def _step_flops(op: Recurrence, work: Workload) -> Count:
    """As plain PyTorch runs a token by itself: its write is an outer product and its normalizer a
    sum of products, no matrix products, so torch counts none for them."""
    value_heads, key, _ = _state(op)
    value_dim = op.shape()[3]
    reads = 1 + isinstance(op.update, Delta)
    return 2 * work.tokens * value_heads * key * value_dim * reads


def _alone_backward(op: Recurrence, work: Workload) -> Count:
    """Of a token by itself. Before it the state is zero; only through a learned decay has that a
    gradient."""
    value_heads, key, _ = _state(op)
    learned = isinstance(op.decay, Scalar | Vector)
    products = 2 + (1 + learned) * isinstance(op.update, Delta)
    return 2 * work.tokens * value_heads * key * op.shape()[3] * products


# -------------------------------------------------------------------------------------- in chunks


def _chunk(work: Workload) -> Count:
    """Tokens of a chunk; the last one is padded."""
    return least(CHUNK, power_of_two(work.length))


def _chunked_flops(op: Recurrence, work: Workload) -> Count:
    """A chunk's scores are full squares; with a decay per channel they are built from halves,
    which skips what is above the diagonal."""
    value_heads, key, value = _state(op)
    chunk = _chunk(work)
    tokens = work.batch * ceil_div(work.length, CHUNK) * chunk
    scores = key * (chunk - 1 if isinstance(op.decay, Vector) else 2 * chunk)
    products = chunk * value + 2 * key * value  # with v; into the state and out of it
    if isinstance(op.update, Delta):
        scores = scores * 2  # k k^T too
        products = products + chunk * (key + value) + key * value  # the two solved, and W S
    return tokens * (op.heads * scores + 2 * value_heads * products)


def _spared(op: Recurrence, work: Workload) -> Count:
    """Products that twice the forward pass would count and the backward pass leaves out: those of
    the last chunk's write, which nothing reads, and those for the state before the first chunk,
    which is no variable."""
    value_heads, key, value = _state(op)
    product = 2 * work.batch * value_heads * _chunk(work) * key * value
    one_chunk = 1 - reached(work.length, CHUNK + 1)
    return product * (2 + isinstance(op.update, Delta) + one_chunk)
