"""The linear recurrence with a matrix state per head, as an op that torch can see through.

Shapes: N sequences (1 if packed) of T tokens, H heads of q and k, A value heads: q, k (N, T, H, K),
v (N, T, A, V). Packed sequences lie one after another in N = 1, bounded by cu_seqlens (M + 1,);
states then are (M, A, K, V). On CUDA the kernels of this folder run; elsewhere, and in float64,
dense.py, which torch differentiates itself.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import dense, plan
from .chunked import EPSILON
from .variant import CHUNK, Variant, unserved

NAMESPACE = namespace(__name__)
DTYPES = (torch.bfloat16, torch.float16)
"""That kernels serve. Those of float32 are right, but their products on the plain cores spill
registers: plain PyTorch takes it."""
_TENSORS = (
    "Tensor q, Tensor k, Tensor v, Tensor? g, Tensor? b, Tensor? state, Tensor? cu_seqlens, "
    "bool delta, float scale"
)
_KEPT = "Tensor solve, Tensor starts, Tensor local, Tensor fade"
COUNT, KEPT = 6, 4
"""Of the arguments that may have gradients, and of what a forward pass keeps for them."""


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    b: Tensor | None = None,
    state: Tensor | None = None,
    z: Tensor | None = None,
    *,
    delta: bool = False,
    normalize: bool = False,
    scale: float = 1.0,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What reference.recurrence gives for the same arguments, and all its gradients.

    cu_seqlens: (M + 1,) integers from 0 to T, on the device of the others; state and z hold one
    state for each of the M sequences then.
    """
    if normalize:  # z is the column of the state that a value of 1 writes
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
        state = _beside(state, z)
    q, k = q.to(v.dtype), k.to(v.dtype)
    check(q, k, v, g, b, state, cu_seqlens)
    if served(q, v, g):
        o, last, *_ = _recurrence(q, k, v, g, b, state, cu_seqlens, delta, scale)
    else:
        o, last = dense.recurrence((q, k, v, g, b), state, cu_seqlens, delta, scale)
    if not normalize:
        return o, last, None
    o = o[..., :-1] / (o[..., -1:] + EPSILON)
    return o, last[..., :-1], last[..., -1]


def _beside(state: Tensor | None, z: Tensor | None) -> Tensor | None:
    """z as one more column of the state."""
    if state is None:
        return None
    z = torch.zeros_like(state[..., 0]) if z is None else z
    return torch.cat([state, z[..., None]], dim=-1)


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    b: Tensor | None,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    """Raise ValueError for what the kernels would read beyond its tensors for."""
    problem = (
        _shapes(q, k, v)
        or _per_token(k, v, g, b)
        or _packing(q, cu_seqlens)
        or _state(k, v, state, cu_seqlens)
    )
    if problem:
        raise ValueError(problem)


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    if not q.dim() == k.dim() == v.dim() == 4:
        axes = f"{q.dim()}, {k.dim()} and {v.dim()} axes"
        return f"q, k and v are (N, T, heads, channels), not of {axes}"
    if q.shape != k.shape or k.shape[:2] != v.shape[:2]:
        told = " and ".join(str(tuple(x.shape)) for x in (q, k, v))
        return f"q and k are alike, and share N and T with v: {told} do not"
    if not k.shape[2] or v.shape[2] % k.shape[2]:
        return f"{k.shape[2]} heads of k do not divide {v.shape[2]} of v"
    return None


def _per_token(k: Tensor, v: Tensor, g: Tensor | None, b: Tensor | None) -> str | None:
    by_head = v.shape[:3]
    if b is not None and b.shape != by_head:
        return f"b is (N, T, value heads) = {tuple(by_head)}, not {tuple(b.shape)}"
    if g is not None and g.shape not in (by_head, k.shape):
        return f"g is {tuple(by_head)} or {tuple(k.shape)}, not {tuple(g.shape)}"
    return None


def _packing(q: Tensor, cu_seqlens: Tensor | None) -> str | None:
    if cu_seqlens is None:
        return None
    if q.shape[0] != 1:
        return f"packed sequences lie in one row, N = 1, not {q.shape[0]}"
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.is_floating_point():
        return "cu_seqlens is (M + 1,) integers"
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        edges = cu_seqlens.tolist()
        if edges[0] != 0 or edges[-1] != q.shape[1] or edges != sorted(edges):
            return f"cu_seqlens must rise from 0 to {q.shape[1]}, not {edges[:8]}"
    return None


def _state(k: Tensor, v: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> str | None:
    sequences = k.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    expected = (sequences, v.shape[2], k.shape[3], v.shape[3])
    if state is not None and state.shape != expected:
        return f"state is {expected}, not {tuple(state.shape)}"
    return None


def served(q: Tensor, v: Tensor, g: Tensor | None) -> bool:
    """Whether kernels run: on CUDA, for what they serve; dense.py takes the rest."""
    there = q.is_cuda and q.dtype in DTYPES and v.numel() > 0
    decay = "vector" if g is not None and g.dim() == 4 else "scalar"
    return there and unserved(q.shape[-1], v.shape[-1], decay=decay) is None


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    """o, the last state, and what the backward pass takes: of passes.Kept, empty where None."""
    from . import passes  # needs triton, which a machine without CUDA may lack

    o, last, kept = passes.forward(*_prepared(*arguments))
    return o, last, *(o.new_empty(0) if x is None else x for x in kept)


def _prepared(
    q: Tensor, k: Tensor, v: Tensor, g: Any, b: Any, state: Any, cu: Any, delta: bool, scale: float
) -> tuple[Any, ...]:
    """What the passes take: inputs, first state, packing, variant."""
    from .chunks import Inputs

    if g is not None and g.dim() == 4:
        g = adjacent(g)
    inputs = Inputs(adjacent(q), adjacent(k), adjacent(v), g, b)
    return inputs, _plain(state), _plain(cu), variant(q, v, g, b, delta, scale)


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    q, _, v, g, b, _, cu_seqlens, delta, scale = arguments
    precise = torch.promote_types(v.dtype, torch.float32)
    packed = cu_seqlens is not None
    sequences = cu_seqlens.shape[0] - 1 if packed else q.shape[0]
    heads, sizes = v.shape[2], (v.shape[2], q.shape[3], v.shape[3])
    last = v.new_empty(sequences, *sizes, dtype=precise)
    solve, starts, local, fade = (v.new_empty(0) for _ in range(4))
    if delta:
        per = -(-q.shape[1] // CHUNK)
        chunks = per + sequences if packed else sequences * per
        solve = v.new_empty(chunks, heads, CHUNK, CHUNK)
    count = plan.stretches(q, packed, variant(q, v, g, b, delta, scale))
    if count > 1:
        stretches = sequences * count
        starts = v.new_empty(stretches, *sizes, dtype=torch.float32)
        if delta:
            columns = v.shape[3] + q.shape[3]
            local = v.new_empty(stretches, *sizes[:2], columns, dtype=torch.float32)
        elif g is not None:
            channels = sizes[1:2] if g.dim() == 4 else ()
            fade = v.new_empty(stretches, heads, *channels, dtype=torch.float32)
    return v.new_empty(v.shape), last, solve, starts, local, fade


def _backward(do: Tensor, dlast: Tensor | None, *rest: Any) -> list[Tensor]:
    """Gradients of q, k, v, g, b and the state, empty where there are none."""
    from . import passes

    kept, arguments = rest[:KEPT], rest[KEPT:]
    found = passes.Kept(*(x if x.numel() else None for x in kept))
    grads = passes.backward(adjacent(do), _plain(dlast), found, *_prepared(*arguments))
    return [
        do.new_empty(0) if x is None or grad is None else grad.to(x.dtype)
        for x, grad in zip(arguments[:COUNT], grads, strict=True)
    ]


def _fake_backward(do: Tensor, dlast: Tensor | None, *rest: Any) -> list[Tensor]:
    arguments = rest[KEPT:]
    return [do.new_empty(0) if x is None else x.new_empty(x.shape) for x in arguments[:COUNT]]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    kept = output[2:]
    ctx.save_for_backward(*kept, *inputs[: COUNT + 1])
    ctx.rule = inputs[COUNT + 1 :]
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, do: Tensor | None, dlast: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    tensors = saved[KEPT:]
    do = torch.zeros_like(tensors[2]) if do is None else do
    grads = _recurrence_backward(do, dlast, *saved, *ctx.rule)
    wanted = (g if x is not None else None for g, x in zip(grads, tensors, strict=False))
    return *wanted, None, *(None for _ in ctx.rule)


def _flops(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    """Of a chunked pass: the state read and written, with delta once more, and pairs in chunks."""
    delta = rest[4]
    batch, tokens, heads, values = v
    keys = k[-1]
    per_token = (3 if delta else 2) * keys * values + CHUNK * (
        3 * keys + 2 * values if delta else keys + values
    )
    return int(2 * batch * tokens * heads * per_token)


def _backward_flops(do: Any, dlast: Any, *rest: Any, **_: Any) -> int:
    """As is usual: two passes more."""
    return 2 * _flops(*rest[KEPT:])


_recurrence = ops.define(
    f"{NAMESPACE}::recurrence",
    f"({_TENSORS}) -> (Tensor, Tensor, {', '.join(['Tensor'] * KEPT)})",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
    flops=_flops,
)
_recurrence_backward = ops.define(
    f"{NAMESPACE}::recurrence_backward",
    f"(Tensor do, Tensor? dlast, {_KEPT}, {_TENSORS}) -> Tensor[]",
    _backward,
    _fake_backward,
    flops=_backward_flops,
)


def variant(
    q: Tensor, v: Tensor, g: Tensor | None, b: Tensor | None, delta: bool, scale: float
) -> Variant:
    """The specialisation that a call asks for."""
    decay = "none" if g is None else "scalar" if g.dim() == 3 else "vector"
    return _variant(q.shape[2:], v.shape[2:], scale, decay, delta, b is not None)


@cache
def _variant(
    keys: tuple[int, int],
    values: tuple[int, int],
    scale: float,
    decay: str,
    delta: bool,
    step: bool,
) -> Variant:
    (heads, key_dim), (value_heads, value_dim) = keys, values
    return Variant(heads, value_heads, key_dim, value_dim, scale, decay, delta, step)


def adjacent(x: Tensor) -> Tensor:
    """x, copied only if its channels do not lie side by side, or its tokens too far apart for the
    32-bit offsets of a chunk."""
    return x if x.stride(3) == 1 and x.stride(1) < 2**24 else x.contiguous()


def _plain(x: Tensor | None) -> Tensor | None:
    """As kernels read it: without gaps, states in float32."""
    if x is None:
        return None
    return (x.float() if x.is_floating_point() else x).contiguous()
