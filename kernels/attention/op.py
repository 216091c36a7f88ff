"""Softmax attention over what a rule leaves visible, as an op that torch can see through.

Shapes: q (B, T, H, D), k (B, T, G, D), v (B, T, G, E) with H = G * R; query head h reads KV head
h // R. Packed sequences lie one after another in B = 1, bounded by cu_seqlens (N + 1,). On CUDA
the kernels of this folder run; elsewhere, and in float64, dense.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..loader import namespace
from . import cost, dense
from .call import Extras, check, served, unpack
from .intervals import Intervals
from .variant import Rule, Variant

NAMESPACE = namespace(__name__)
_EXTRAS = ", ".join(f"Tensor? {name}" for name in Extras._fields)
_RULE = "int? window, int sinks, int rate, int strided, float scale, float? softcap, bool tf32"


def attention(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """`attention_with_lse` without the log-sum-exp: (B, T, H, E)."""
    return attention_with_lse(q, k, v, **options)[0]


def attention_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    sinks: int = 0,
    rate: int = 1,
    strided: int = 0,
    intervals: Intervals | None = None,
    score: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    slopes: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """softmax(cap(scale * q k^T) - slope * (t - j)) v over the keys that each query sees, (B, T, H,
    E), and the log-sum-exp of each row's scores (B, H, T); both have gradients.

    Query t sees the keys j <= t of its sequence where t - j < window and rate divides t - j, or j
    is among the first `sinks`, or strided (unless 0) divides t - j; without a window, all of them.
    Under `intervals` it sees the keys with t < death[j]; those in its window are among them.

    score: (B, G, T), is not read; its gradient is <dv[j], v[j]>. scale: 1 / sqrt(D) unless given.
    softcap: cap(s) is softcap * tanh(s / softcap). sink_logits: (H,), a logit that joins each
    softmax and its log-sum-exp, and carries no value. slopes: (H,), ALiBi's; they get no gradient.
    tf32: whether products of float32 may round their factors to 10 bits.
    """
    extras = Extras(score, sink_logits, slopes, cu_seqlens, *(intervals or ()))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    rule = Rule(window, sinks, rate, strided, scale, softcap, tf32)
    check(q, k, v, extras, rule)
    result: tuple[Tensor, Tensor] = _attention(q, k, v, *extras, *rule)
    return result


def _forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    extras, rule = unpack(rest)
    if not served(q):
        return dense.forward(q, k, v, extras, rule)
    from . import launch  # needs triton, which a machine without CUDA may lack

    return launch.forward(q, k, v, variant(q, k, v, extras, rule), extras, tf32=rule.tf32)


def _fake_forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, tokens, heads, _ = q.shape
    precise = torch.promote_types(q.dtype, torch.float32)
    lse = q.new_empty(batch, heads, tokens, dtype=precise)
    return q.new_empty(batch, tokens, heads, v.shape[-1]), lse


def _backward(
    do: Tensor,
    dlse: Tensor | None,
    o: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    """dq, dk, dv, and the gradients of score and sink_logits, empty where there are none."""
    extras, rule = unpack(rest)
    if not served(q):
        return dense.backward(do, dlse, q, k, v, extras, rule)
    from . import launch

    chosen = variant(q, k, v, extras, rule, dlse is not None)
    return launch.backward(do, q, k, v, o, lse, dlse, chosen, extras, tf32=rule.tf32)


def _fake_backward(
    do: Tensor,
    dlse: Tensor | None,
    o: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    extras, _ = unpack(rest)
    beside = (q.new_empty(0) if x is None else x.new_empty(x.shape) for x in extras[:2])
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), *beside


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    extras, ctx.rule = unpack(inputs[3:])
    ctx.save_for_backward(*output, *inputs[:3], *extras)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, do: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    o, lse, q, k, v, *rest = ctx.saved_tensors
    do = torch.zeros_like(o) if do is None else do
    grads = _attention_backward(do, dlse, o, lse, q, k, v, *rest, *ctx.rule)
    wanted = (grad if x is not None else None for grad, x in zip(grads[3:], rest, strict=False))
    return *grads[:3], *wanted, *(None,) * (len(rest) - 2 + len(ctx.rule))


_attention = ops.define(
    f"{NAMESPACE}::attention",
    f"(Tensor q, Tensor k, Tensor v, {_EXTRAS}, {_RULE}) -> (Tensor, Tensor)",
    _forward,
    _fake_forward,
    setup=_setup,
    backward=_differentiate,
    flops=cost.forward_flops,
)
_attention_backward = ops.define(
    f"{NAMESPACE}::attention_backward",
    f"(Tensor do, Tensor? dlse, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, {_EXTRAS}, "
    f"{_RULE}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
    flops=cost.backward_flops,
)


def variant(
    q: Tensor, k: Tensor, v: Tensor, extras: Extras, rule: Rule, lse_grad: bool = False
) -> Variant:
    """The specialisation that a call asks for."""
    given = tuple(x is not None for x in extras)
    budget = None if extras.snapshots is None else extras.snapshots.shape[-1]
    return _variant((q.shape[2], k.shape[2], q.shape[3], v.shape[3]), given, budget, rule, lse_grad)


@cache
def _variant(
    sizes: tuple[int, int, int, int],
    given: tuple[bool, ...],
    budget: int | None,
    rule: Rule,
    lse_grad: bool,
) -> Variant:
    """given: which of the extras are there. Without a window, nothing else limits what is seen."""
    there = dict(zip(Extras._fields, given, strict=True))
    everything = rule.window is None or rule.strided == 1
    return Variant(
        *sizes,
        rule.scale,
        window=None if everything else rule.window,
        sinks=0 if everything else rule.sinks,
        packed=there["cu_seqlens"],
        lse_grad=lse_grad,
        intervals=there["death"],
        budget=budget,
        score_grad=there["score"],
        rate=1 if everything else rule.rate,
        strided=0 if everything else rule.strided,
        softcap=rule.softcap,
        sink_logits=there["sink_logits"],
        slopes=there["slopes"],
    )
