"""Attention over a window and sinks, or all of the past, as an op that torch can see through.

Shapes: q (B, T, H, D), k (B, T, G, D), v (B, T, G, E) with H = G * R; query head h reads KV head
h // R. Packed sequences lie one after another in B = 1, bounded by cu_seqlens (N + 1,). On CUDA
the kernels of this folder run, elsewhere dense.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import dense
from .variant import Variant


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    sinks: int = 0,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    tf32: bool = False,
) -> Tensor:
    """softmax(scale * q k^T) v over the keys that each query sees: (B, T, H, E).

    A query sees the last `window` tokens, itself included, and the first `sinks` of its sequence;
    without a window, all of the past. scale: 1 / sqrt(D) unless given. tf32: whether products of
    float32 may round their factors to 10 bits.
    """
    return attention_with_lse(
        q, k, v, window=window, sinks=sinks, scale=scale, cu_seqlens=cu_seqlens, tf32=tf32
    )[0]


def attention_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    sinks: int = 0,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """`attention`, and the log-sum-exp of each row's scores (B, H, T); both have gradients."""
    _check(q, k, v, cu_seqlens)
    if sinks < 0 or (window is not None and window < 1):
        raise ValueError(f"a window is 1 or more and sinks 0 or more, not {window} and {sinks}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    result: tuple[Tensor, Tensor] = _attention(q, k, v, cu_seqlens, window, sinks, scale, tf32)
    return result


def _check(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> None:
    """Refuse shapes that the kernels would read beyond. What cu_seqlens holds is checked on the
    CPU alone: elsewhere a look at it would wait for the device."""
    if not q.dim() == k.dim() == v.dim() == 4:
        raise ValueError(f"q, k and v are (B, T, heads, channels), not of {q.dim()}, {k.dim()} and "
                         f"{v.dim()} axes")
    if not q.shape[:2] == k.shape[:2] == v.shape[:2] or q.numel() == 0:
        raise ValueError(f"q, k and v share B and T, 1 or more, not {tuple(q.shape[:2])}, "
                         f"{tuple(k.shape[:2])} and {tuple(v.shape[:2])}")
    if k.shape[2] != v.shape[2] or q.shape[3] != k.shape[3]:
        raise ValueError(f"k and v share their heads, q and k their channels: {tuple(q.shape)}, "
                         f"{tuple(k.shape)} and {tuple(v.shape)} do not")
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"{k.shape[2]} KV heads do not divide {q.shape[2]} query heads")
    if not q.device == k.device == v.device:
        raise ValueError(f"q, k and v are on {q.device}, {k.device} and {v.device}")
    if cu_seqlens is None:
        return
    if q.shape[0] != 1:
        raise ValueError(f"packed sequences lie in one batch row, not in {q.shape[0]}")
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.is_floating_point():
        raise ValueError("cu_seqlens is (N + 1,) integers")
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        edges = cu_seqlens.tolist()
        if edges[0] != 0 or edges[-1] != q.shape[1] or edges != sorted(edges):
            raise ValueError(f"cu_seqlens must rise from 0 to {q.shape[1]}, not {edges[:8]}")


@torch.library.custom_op("mixerlang::attention", mutates_args=())
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    if not q.is_cuda:
        return dense.forward(q, k, v, cu_seqlens, window, sinks, scale)
    from . import launch  # needs triton, which a machine without CUDA may lack

    variant = _variant(q, k, v, cu_seqlens, window, sinks, scale, tf32)
    with torch.cuda.device(q.device):
        return launch.forward(q, k, v, variant, _packing(cu_seqlens, q))


@_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
    tf32: bool,
) -> tuple[Tensor, Tensor]:
    batch, tokens, heads, _ = q.shape
    precise = torch.promote_types(q.dtype, torch.float32)
    lse = q.new_empty(batch, heads, tokens, dtype=precise)
    return q.new_empty(batch, tokens, heads, v.shape[-1]), lse


@torch.library.custom_op("mixerlang::attention_backward", mutates_args=())
def _backward(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not q.is_cuda:
        return dense.backward(do, dlse, q, k, v, cu_seqlens, window, sinks, scale)
    from . import launch

    variant = _variant(q, k, v, cu_seqlens, window, sinks, scale, tf32, dlse is not None)
    with torch.cuda.device(q.device):
        return launch.backward(do, q, k, v, o, lse, dlse, variant, _packing(cu_seqlens, q))


@_backward.register_fake
def _(
    do: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, *ctx.constants = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, do: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, o, lse, cu_seqlens = ctx.saved_tensors
    do = torch.zeros_like(o) if do is None else do
    grads = _backward(do, dlse, q, k, v, o, lse, cu_seqlens, *ctx.constants)
    return *grads, None, None, None, None, None


_attention.register_autograd(_differentiate, setup_context=_setup)


def _variant(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    window: int | None,
    sinks: int,
    scale: float,
    tf32: bool,
    lse_grad: bool = False,
) -> Variant:
    """The specialisation that these arguments call for."""
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}")
    return _make_variant(
        *(q.shape[2], k.shape[2], q.shape[3], v.shape[3]),
        *(str(q.dtype).removeprefix("torch."), scale),
        *(window, sinks if window is not None else 0),
        *(cu_seqlens is not None, lse_grad, tf32),
    )


_make_variant = cache(Variant)


def _packing(cu_seqlens: Tensor | None, q: Tensor) -> Any:
    from .launch import bounds

    return None if cu_seqlens is None else bounds(cu_seqlens, q.shape[1])


# ----------------------------------------------------------------------------------------- cost


def visible_pairs(tokens: int, window: int | None, sinks: int) -> int:
    """Pairs of query and key that count, in one sequence of `tokens`."""
    if window is None or window >= tokens:
        return tokens * (tokens + 1) // 2
    outside = tokens - window  # queries that do not see token 0 through their window
    ramp = min(sinks, outside)
    pinned = ramp * (ramp + 1) // 2 + sinks * (outside - ramp)
    return window * tokens - window * (window - 1) // 2 + pinned


@register_flop_formula(torch.ops.mixerlang.attention)
def _forward_flops(
    q: tuple[int, ...],
    k: tuple[int, ...],
    v: tuple[int, ...],
    cu_seqlens: tuple[int, ...] | None,
    window: int | None,
    sinks: int,
    *_: Any,
    **__: Any,
) -> int:
    """Useful FLOPs, masked pairs left out; packed sequences are counted as if they were one."""
    batch, tokens, heads, dim = q
    return 2 * batch * heads * visible_pairs(tokens, window, sinks) * (dim + v[-1])


@register_flop_formula(torch.ops.mixerlang.attention_backward)
def _backward_flops(
    do: tuple[int, ...],
    dlse: tuple[int, ...] | None,
    q: tuple[int, ...],
    k: tuple[int, ...],
    v: tuple[int, ...],
    o: tuple[int, ...],
    lse: tuple[int, ...],
    cu_seqlens: tuple[int, ...] | None,
    window: int | None,
    sinks: int,
    *_: Any,
    **__: Any,
) -> int:
    """Five products: the scores again, dp, dq, dk and dv."""
    batch, tokens, heads, dim = q
    return 2 * batch * heads * visible_pairs(tokens, window, sinks) * (3 * dim + 2 * v[-1])
