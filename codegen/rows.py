"""What a step of few rows launches around its mixers: products with weights, and norms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ..primitives.attention import Attention
from ..primitives.base import Op
from ..primitives.ffn import Mlp, SwiGLU
from ..primitives.norm import RMSNorm

if TYPE_CHECKING:
    from ..kernels.ahead import Job


def jobs(op: Op, width: int, dtype: str, architecture: str) -> Iterator[Job]:
    """Of one node whose input has `width` channels."""
    from ..kernels.linear import ahead
    from ..kernels.norm import rms_ahead

    linear = partial(ahead.jobs, dtype=dtype, architecture=architecture)
    if isinstance(op, Attention):
        heads, kv_heads, head_dim, value_dim = op.shape()
        outputs = (heads * head_dim, kv_heads * head_dim, kv_heads * value_dim)
        yield from linear(width, outputs, bias=op.bias)
        yield from linear(heads * value_dim, (width,), residual=True)
    elif isinstance(op, SwiGLU):
        assert op.hidden is not None
        yield from linear(width, (op.hidden,), gated=True)
        yield from linear(op.hidden, (width,), residual=True)
    elif isinstance(op, Mlp):
        assert op.hidden is not None
        yield from linear(width, (op.hidden,), bias=op.bias)
        yield from linear(op.hidden, (width,), bias=op.bias, residual=True)
    elif isinstance(op, RMSNorm) and width <= rms_ahead.MAX_DIM:
        yield from rms_ahead.jobs(width, dtype, architecture)
