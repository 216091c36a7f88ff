"""Run the attention kernels over interval lists in Triton's interpreter, against float64.

A process of its own, as interpret_attention.py: test_kernels_lte_interpret.py starts it. Prints a
JSON object, case -> relative errors of o, lse, dq, dk, dv and the scores' gradient.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import torch
from interpret_attention import relative
from interpreting import accept_new_numpy

from mixerlang.kernels.attention import gathered, launch
from mixerlang.kernels.attention.call import Extras
from mixerlang.kernels.attention.intervals import SEGMENT, Intervals
from mixerlang.kernels.attention.variant import Tile, Variant
from mixerlang.kernels.eviction.reference import intervals

TILES = {"square": Tile(32, 32, 1, 1), "wide": Tile(64, 32, 1, 1), "tall": Tile(32, 64, 1, 1)}
HELD = Tile(32, 16, 1, 1)

CASES: dict[str, tuple[Any, ...]] = {
    # tokens, heads, KV heads, head dim, value dim, window, budget, scores, cu_seqlens, run, tile
    "capped": (600, 2, 1, 16, 16, 70, 40, "random", None, 1, "wide"),
    "all replaced": (650, 1, 1, 16, 16, 50, 20, "rising", None, 2, "tall"),
    "two sequences, odd dims": (500, 2, 2, 20, 40, 64, 24, "random", None, 1, "square"),
    "budget beyond the length": (400, 1, 1, 16, 16, 40, 500, "random", None, 1, "square"),
    "window beyond the length": (150, 1, 1, 16, 16, 200, 30, "random", None, 1, "square"),
    "kept": (600, 2, 1, 16, 16, 70, None, "random", None, 1, "tall"),
    "none kept": (400, 1, 1, 16, 16, 30, None, "none", None, 1, "square"),
    "packed": (700, 2, 1, 16, 16, 40, 20, "rising", [0, 1, 60, 420, 421, 700], 1, "wide"),
    "packed, kept": (700, 1, 1, 16, 16, 40, None, "random", [0, 129, 500, 500, 700], 1, "tall"),
}


def lists(scores: str, shape: tuple[int, ...], window: int, budget: Any, cu: Any) -> Intervals:
    z = torch.randn(shape).abs() if scores == "random" else torch.arange(1.0, shape[-1] + 1)
    z = (-z if scores == "none" else z).expand(shape)
    if budget is None:
        z = z - 1.2
    found = intervals(z, window, budget, 2, 0.0, cu, segment=SEGMENT)
    death, kept, counts, *slots = (x if x is None else x.contiguous() for x in found)
    assert death is not None and kept is not None and counts is not None
    return Intervals(death, kept, counts, *slots)


def run(case: tuple[Any, ...]) -> list[float]:
    tokens, heads, kv_heads, dim, value_dim, window, budget, scores, cu, segments, shape = case
    torch.manual_seed(0)
    batch = 2 if dim == 20 else 1
    q = torch.randn(batch, tokens, heads, dim)
    k = torch.randn(batch, tokens, kv_heads, dim)
    v = torch.randn(batch, tokens, kv_heads, value_dim)
    do, dlse = torch.randn(batch, tokens, heads, value_dim), torch.randn(batch, heads, tokens)
    edges = None if cu is None else torch.tensor(cu)
    eviction = lists(scores, (batch, kv_heads, tokens), window, budget, edges)
    variant = Variant(
        *(heads, kv_heads, dim, value_dim, 0.3, window),
        packed=cu is not None,
        lse_grad=True,
        intervals=True,
        budget=budget,
        score_grad=True,
    )
    tile = TILES[shape]
    score = torch.randn(batch, kv_heads, tokens)
    extras = Extras(score, None, None, edges, *eviction)
    o, lse = launch.forward(q, k, v, variant, extras, tile)
    dq, pairs = launch.backward_q(do, q, k, v, o, lse, dlse, variant, extras, tile)
    gathered.found = partial(
        gathered.found, tiles={"backward_gathered": tile, "backward_held": HELD}, run=segments
    )
    dk, dv, dscore = launch.backward_kv(do, q, k, v, pairs, variant, extras, tile)
    expected = oracle(q, k, v, do, dlse, eviction.death, edges)
    found = (o, lse, dq, dk, dv, dscore)
    gathered.found = gathered.found.func
    return [relative(a, b) for a, b in zip(found, expected, strict=True)]


def oracle(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    do: torch.Tensor,
    dlse: torch.Tensor,
    death: torch.Tensor,
    edges: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """By the whole score matrix and autograd, in float64."""
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    repeat = q.shape[2] // k.shape[2]
    keys, values = (x.repeat_interleave(repeat, dim=2) for x in wide[1:])
    index = torch.arange(q.shape[1])
    start = torch.zeros_like(index)
    for edge in [] if edges is None else edges.tolist():
        start = torch.where(index >= edge, edge, start)
    t = index[:, None]
    seen = (index <= t) & (start == start[:, None]) & (t < death[:, :, None])
    s = torch.einsum("bthd,bjhd->bhtj", wide[0], keys) * 0.3
    s = s.masked_fill(~seen.repeat_interleave(repeat, dim=1), -torch.inf)
    o, lse = torch.einsum("bhtj,bjhd->bthd", s.softmax(-1), values), s.logsumexp(-1)
    grads = torch.autograd.grad((o, lse), wide, (do.double(), dlse.double()))
    return o, lse, *grads, (grads[2] * v).sum(-1).transpose(1, 2)


if __name__ == "__main__":
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)  # with it, new tensors hold NaN
    names = sys.argv[1:] or list(CASES)
    print(json.dumps({name: run(CASES[name]) for name in names}))
