"""Short causal convolution of each channel, then SiLU and the length of heads, as one op.

Shapes: x (B, T, C), rows with gaps allowed; weight (C, kernel); bias (C,); N sequences: B, or those
that cu_seqlens (N + 1,) tells apart, with B = 1; initial and tail (N, kernel - 1, C), the inputs
before the first token and after the last. On CUDA the kernels of this folder run, elsewhere, and in
float64, dense.py. No FLOP formula: torch counts products of matrices alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import dense
from .cut import MAX_HEAD_DIM, MAX_KERNEL, Part

NAMESPACE = namespace(__name__)
MAX_PARTS = 3


def convolve(
    x: Tensor,
    weight: Tensor,
    parts: Sequence[Part],
    bias: Tensor | None = None,
    *,
    initial: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    keep_tail: bool = False,
) -> tuple[list[Tensor], Tensor | None]:
    """y (B, T, channels) of each part, contiguous, and the tail if it is to be kept.

    z_t = bias + sum over i of weight[:, i] * x_(t - kernel + 1 + i), where what stands before a
    sequence is `initial` or zero; y = z, or silu(z), and of parts with a head_dim each head over
    sqrt(sum of its squares + 1e-6). In float32, rounded once. No gradient goes to `initial`.
    """
    _check(x, weight, parts, bias, initial, cu_seqlens)
    *results, tail = _convolve(
        x,
        weight,
        bias,
        initial,
        cu_seqlens,
        [part.channels for part in parts],
        [int(part.silu) for part in parts],
        [part.head_dim for part in parts],
        keep_tail,
    )
    return results[: len(parts)], tail if keep_tail else None


def _check(
    x: Tensor,
    weight: Tensor,
    parts: Sequence[Part],
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    """Refuse what the kernels would read beyond."""
    if x.dim() != 3 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(f"x is (B, T, C) of floats and not empty, not {tuple(x.shape)} {x.dtype}")
    batch, _, channels = x.shape
    if weight.dim() != 2 or weight.shape[0] != channels:
        raise ValueError(f"weight is ({channels}, kernel), not {tuple(weight.shape)}")
    kernel = weight.shape[1]
    if not 1 <= kernel <= MAX_KERNEL:
        raise ValueError(f"a kernel of {kernel} taps: 1 to {MAX_KERNEL} are served")
    if not 1 <= len(parts) <= MAX_PARTS or sum(part.channels for part in parts) != channels:
        raise ValueError(f"1 to {MAX_PARTS} parts have {channels} channels together, not {parts}")
    for part in parts:
        if part.head_dim not in {0, max(each.head_dim for each in parts)}:
            raise ValueError(f"parts are normed over heads of one size, not {parts}")
        if part.head_dim > MAX_HEAD_DIM or (part.head_dim and part.channels % part.head_dim):
            raise ValueError(
                f"heads of {part.head_dim} channels do not divide {part.channels}, or "
                f"are wider than {MAX_HEAD_DIM}"
            )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias is ({channels},), not {tuple(bias.shape)}")
    if cu_seqlens is not None and (batch != 1 or cu_seqlens.dim() != 1 or len(cu_seqlens) < 2):
        raise ValueError("cu_seqlens (N + 1,) goes with x of shape (1, T, C)")
    sequences = batch if cu_seqlens is None else len(cu_seqlens) - 1
    if initial is not None and tuple(initial.shape) != (sequences, kernel - 1, channels):
        raise ValueError(
            f"initial is {(sequences, kernel - 1, channels)}, not {tuple(initial.shape)}"
        )
    if initial is not None and initial.requires_grad:
        raise ValueError("no gradient goes to the inputs before the first: give initial.detach()")


def _parts(channels: list[int], silu: list[int], head_dims: list[int]) -> tuple[Part, ...]:
    each = zip(channels, silu, head_dims, strict=True)
    return tuple(Part(width, bool(flag), dim) for width, flag, dim in each)


def _module(x: Tensor) -> Any:
    """What serves x: both have a `forward` and a `backward`."""
    if not x.is_cuda or x.dtype == torch.float64:
        return dense
    from . import launch  # needs triton, which a machine without CUDA may lack

    return launch


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    channels: list[int],
    silu: list[int],
    head_dims: list[int],
    keep_tail: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three results, empty where there are fewer parts, and the tail, empty if it is not kept."""
    parts = _parts(channels, silu, head_dims)
    tail = _new_tail(x, weight, initial, cu_seqlens, keep_tail)
    results = _module(x).forward(
        x, weight, bias, initial, cu_seqlens, parts, tail if keep_tail else None
    )
    results += [x.new_empty(0) for _ in range(MAX_PARTS - len(parts))]
    return *results, tail


def _new_tail(
    x: Tensor, weight: Tensor, initial: Tensor | None, cu_seqlens: Tensor | None, keep_tail: bool
) -> Tensor:
    if not keep_tail:
        return x.new_empty(0)
    sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    shape = sequences, weight.shape[1] - 1, x.shape[2]
    return x.new_empty(shape, dtype=x.dtype if initial is None else initial.dtype)


def _fake_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    channels: list[int],
    silu: list[int],
    head_dims: list[int],
    keep_tail: bool,
) -> tuple[Tensor, ...]:
    results = [x.new_empty(*x.shape[:2], width) for width in channels]
    results += [x.new_empty(0) for _ in range(MAX_PARTS - len(channels))]
    return *results, _new_tail(x, weight, initial, cu_seqlens, keep_tail)


def _backward(
    gradients: list[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    channels: list[int],
    silu: list[int],
    head_dims: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, and the gradients of the weight and the bias, the latter empty where there is none."""
    parts = _parts(channels, silu, head_dims)
    dx, dw, db = _module(x).backward(gradients, x, weight, bias, initial, cu_seqlens, parts)
    dw = dw.to(weight.dtype).contiguous()
    return dx, dw, x.new_empty(0) if bias is None else db.to(bias.dtype, copy=True)


def _fake_backward(
    gradients: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    db = x.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), db


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.channels, ctx.silu, ctx.head_dims, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(output[-1])


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    given = list(gradients[: len(ctx.channels)])
    x, weight, bias, *rest = ctx.saved_tensors
    rule = ctx.channels, ctx.silu, ctx.head_dims
    dx, dw, db = _convolve_backward(given, x, weight, bias, *rest, *rule)
    return dx, dw, None if bias is None else db, *(None,) * 6


_TENSORS = "Tensor x, Tensor weight, Tensor? bias, Tensor? initial, Tensor? cu_seqlens"
_RULE = "int[] channels, int[] silu, int[] head_dims"

_convolve = ops.define(
    f"{NAMESPACE}::convolve",
    f"({_TENSORS}, {_RULE}, bool keep_tail) -> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
)
_convolve_backward = ops.define(
    f"{NAMESPACE}::convolve_backward",
    f"(Tensor[] gradients, {_TENSORS}, {_RULE}) -> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)
