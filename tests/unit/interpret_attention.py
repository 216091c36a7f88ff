"""Run the rendered attention kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_attention_interpret.py starts it. Prints a JSON object, case -> relative errors of o,
lse and the gradients against float64; NaN where an element was never written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from interpreting import accept_new_numpy
from torch import Tensor

from mixerlang.kernels.attention import dense, launch, op
from mixerlang.kernels.attention.call import Extras
from mixerlang.kernels.attention.variant import Rule, Tile

SMALL = Tile(16, 16, 1, 1)
WIDE_OWN = Tile(32, 16, 1, 1)
WIDE_STEP = Tile(16, 32, 1, 1)


@dataclass
class Case:
    tokens: int
    heads: int = 2
    kv_heads: int = 1
    batch: int = 1
    dim: int = 16
    value_dim: int = 16
    window: int | None = None
    sinks: int = 0
    rate: int = 1
    strided: int = 0
    softcap: float | None = None
    sink_logits: bool = False
    slopes: bool = False
    edges: tuple[int, ...] | None = None
    tile: Tile = SMALL


CASES = {
    "plain": Case(37, batch=2, window=8),
    "one token": Case(1, 1, window=8),
    "window of one": Case(40, window=1, tile=WIDE_OWN),
    "window of a block": Case(70, 1, window=16),
    "window beyond the length": Case(40, 3, 3, window=100, sinks=2, tile=WIDE_STEP),
    "core and edges": Case(90, 1, window=50, tile=WIDE_STEP),
    "sinks, wider values": Case(70, 2, 2, value_dim=32, window=20, sinks=3, tile=WIDE_OWN),
    "many sinks": Case(70, window=5, sinks=20),
    "full, odd heads": Case(66, 3, tile=WIDE_STEP),
    "cut and padded head": Case(40, dim=52, value_dim=20, window=9),
    "packed": Case(70, 4, 2, window=20, edges=(0, 1, 20, 21, 70), tile=WIDE_STEP),
    "packed with sinks": Case(70, window=5, sinks=3, edges=(0, 1, 20, 21, 50, 70), tile=WIDE_OWN),
    "packed, full": Case(66, edges=(0, 33, 33, 66), tile=WIDE_OWN),
    "softcap": Case(50, window=20, softcap=1.5),
    "sink logits": Case(50, 4, 2, window=20, sink_logits=True, tile=WIDE_STEP),
    "slopes, full": Case(50, slopes=True, tile=WIDE_OWN),
    "thinned window": Case(70, window=40, rate=3, tile=WIDE_STEP),
    "strided": Case(70, window=4, strided=7, tile=WIDE_OWN),
    "all reaches, packed": Case(
        70, window=12, rate=2, strided=5, sinks=3, edges=(0, 1, 40, 70), tile=WIDE_STEP
    ),
    "all rules": Case(
        70,
        *(4, 2, 2),
        dim=20,
        window=24,
        rate=2,
        sinks=2,
        softcap=2.0,
        sink_logits=True,
        slopes=True,
    ),
    "slopes and cap, packed": Case(
        70, window=30, softcap=1.0, slopes=True, sink_logits=True, edges=(0, 9, 9, 70)
    ),
}


def run(case: Case) -> list[float]:
    torch.manual_seed(0)
    q = torch.randn(case.batch, case.tokens, case.heads, case.dim)
    k = torch.randn(case.batch, case.tokens, case.kv_heads, case.dim)
    v = torch.randn(case.batch, case.tokens, case.kv_heads, case.value_dim)
    do = torch.randn(case.batch, case.tokens, case.heads, case.value_dim)
    dlse = torch.randn(case.batch, case.heads, case.tokens)
    extras = Extras(
        sink_logits=torch.randn(case.heads) if case.sink_logits else None,
        slopes=torch.rand(case.heads) if case.slopes else None,
        cu_seqlens=None if case.edges is None else torch.tensor(case.edges),
    )
    rule = Rule(case.window, case.sinks, case.rate, case.strided, 0.3, case.softcap)
    variant = op.variant(q, k, v, extras, rule, lse_grad=True)
    o, lse = launch.forward(q, k, v, variant, extras, tile=case.tile)
    dq, pairs = launch.backward_q(do, q, k, v, o, lse, dlse, variant, extras, tile=case.tile)
    dk, dv, _ = launch.backward_kv(do, q, k, v, pairs, variant, extras, tile=case.tile)
    found = [o, lse, dq, dk, dv]
    wide = [x.double() for x in (q, k, v)]
    expected = [*dense.forward(*wide, extras, rule)]
    *grads, _, dsinks = dense.backward(do.double(), dlse.double(), *wide, extras, rule)
    expected += grads
    if case.sink_logits:
        found.append(launch.sinks_gradient(extras.sink_logits, lse, pairs))
        expected.append(dsinks)
    return [relative(a, b) for a, b in zip(found, expected, strict=True)]


def relative(found: Tensor, expected: Tensor) -> float:
    scale = max(expected.norm().item(), 1e-2 * expected.numel() ** 0.5)
    return (found.double() - expected).norm().item() / scale


if __name__ == "__main__":
    accept_new_numpy()
    launch.RUN = 32  # so that there are several
    torch.use_deterministic_algorithms(True)  # with it, new tensors hold NaN
    print(json.dumps({name: run(case) for name, case in CASES.items()}))
