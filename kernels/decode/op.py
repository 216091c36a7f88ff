"""Decoding from a cache of fixed size: a few new tokens per sequence, whatever lies behind them.

Shapes: N sequences, T new tokens of each (at most layout.span), H query heads, G KV heads, D
channels of q and k, E of v; query head h reads KV head h // (H / G).

    layout = Layout(window=768, budget=512, sinks=4, kind="learned", lookahead=6)
    state = new_state(layout, N, G, D, E, max_length, dtype, device)
    fill(layout, state, k, v, next=lengths, ...)          after a prefill (state.py)
    out = step(layout, state, q, k, v, seen=lengths, ...)  then lengths += T
    history(layout, state, lengths)                        as an axis of tokens, for a longer chunk

`step` changes the state in place, never waits for the device, and may be captured in a CUDA graph.
Taking back tokens of the last step is calling the next one with a smaller `seen`: nothing that a
step does for its own tokens outlives them, but what they wrote beyond `seen`, which nobody reads.
Sequences do not look at each other. On CUDA the kernels of this folder run, in float32, bfloat16
and float16; elsewhere, and for float64, dense.py.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..scorer import op as scoring
from . import dense
from .layout import Layout
from .rule import Rule
from .state import History, State, fill, history, new_state, ring_size

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MOST_ROWS = 2**16 - 1
"""Sequences times KV heads: the second axis of a grid."""


class Scorer(NamedTuple):
    """The network of a learned layout, as kernels/scorer/op.py makes it: `pack(...)` and its
    `network`."""

    packed: Any
    network: Any


def step(
    layout: Layout,
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    seen: Tensor,
    raw_k: Tensor | None = None,
    scorer: Scorer | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Put new tokens into the state and attend to all that they see: (N, T, H, E).

    q (N, T, H, D), k and raw_k (N, T, G, D), v (N, T, G, E); seen (N,) integers, tokens before
    these. raw_k: keys before positions, of kinds `learned` and `norm`; scorer: of `learned`.
    scale: 1 / sqrt(D) unless given; softcap, sink_logits (H,) and slopes (H,) as in
    attention.reference.attention_weights.
    """
    _check(layout, state, q, k, v, raw_k, seen, scorer)
    _check_heads(q, sink_logits=sink_logits, slopes=slopes)
    rule = Rule(q.shape[-1] ** -0.5 if scale is None else scale, softcap, sink_logits, slopes)
    q, k, v = (x.to(state["k"].dtype) for x in (q, k, v))
    raw_k = None if raw_k is None else raw_k.to(state["k"].dtype)
    score = None if scorer is None else partial(_score, layout, state, scorer)
    if _served(q):
        from . import launch  # needs triton, which a machine without CUDA may lack

        with torch.cuda.device(q.device):
            return launch.step(layout, state, q, k, v, raw_k, seen, rule, score)
    out = dense.step(layout, state, q, k, v, raw_k, seen, rule)
    if score is not None:
        score()
    return out


def _score(layout: Layout, state: State, scorer: Scorer) -> None:
    """The scores of the next `period` tokens, in the sequences where these are due."""
    ring = ring_size(layout, state)
    scoring.rows(
        *(state["raw_k"], state["v"][:, :, :ring], state["z"][:, :, :ring]),
        *(scorer.packed, scorer.network),
        begin=state["due"],
        count=layout.period,
    )


def _served(x: Tensor) -> bool:
    """Whether kernels take x."""
    return x.is_cuda and x.dtype in KERNEL_DTYPES


def scores(layout: Layout, raw_k: Tensor | None, positions: Tensor) -> Tensor:
    """What the kinds `norm` and `random` know of tokens at once, to be handed to a prefill.

    raw_k: (N, T, G, D); positions: (N, G, T). Returns (N, G, T) float32; for the same token the
    same bits as in a step.
    """
    if layout.kind == "norm" and raw_k is not None and _served(raw_k):
        from . import launch

        with torch.cuda.device(raw_k.device):
            return launch.norms(raw_k).transpose(1, 2)
    return dense.scores(layout, raw_k, positions)


def _check(
    layout: Layout,
    state: State,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    raw_k: Tensor | None,
    seen: Tensor,
    scorer: Scorer | None,
) -> None:
    """Refuse shapes that the kernels would read beyond."""
    (batch, kv_heads, _, dim), value_dim = state["k"].shape, state["v"].shape[-1]
    tokens, heads = q.shape[1:3]
    expected = {
        "q": (q, (batch, tokens, heads, dim)),
        "k": (k, (batch, tokens, kv_heads, dim)),
        "v": (v, (batch, tokens, kv_heads, value_dim)),
        "seen": (seen, (batch,)),
    }
    if raw_k is not None:
        expected["raw_k"] = (raw_k, (batch, tokens, kv_heads, dim))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is of shape {tuple(tensor.shape)}, where {shape} is due")
    if not seen.is_contiguous():
        raise ValueError(f"seen holds numbers side by side, not with strides {seen.stride()}")
    if heads % kv_heads:
        raise ValueError(f"{kv_heads} KV heads do not divide {heads} query heads")
    if batch * kv_heads > MOST_ROWS:
        raise ValueError(
            f"{batch} sequences of {kv_heads} KV heads: a step takes {MOST_ROWS} of both together; "
            f"nearest {MOST_ROWS // kv_heads} sequences"
        )
    if not 1 <= tokens <= layout.span:
        raise ValueError(f"{tokens} new tokens a step: this layout takes 1 to {layout.span}")
    if raw_k is None and layout.kind in ("learned", "norm"):
        raise ValueError(f"kind {layout.kind} needs raw_k, the keys before positions")
    if (scorer is None) == (layout.kind == "learned"):
        raise ValueError(f"kind {layout.kind} and scorer {scorer} do not go together")


def _check_heads(q: Tensor, **per_head: Tensor | None) -> None:
    """Refuse what the kernels would read beyond, number by number of a head."""
    for name, x in per_head.items():
        if x is not None and (x.shape != (q.shape[2],) or not x.is_contiguous()):
            told = f"{tuple(x.shape)} with strides {x.stride()}"
            raise ValueError(f"{name} is ({q.shape[2]},), one number beside the other, not {told}")


__all__ = [
    "History",
    "Layout",
    "Scorer",
    "State",
    "fill",
    "history",
    "new_state",
    "scores",
    "step",
]
