"""Run the rendered scorer kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_scorer_interpret.py starts it. Prints a JSON object, case -> relative errors of z and
of every gradient against float64; NaN where an element was never written.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from interpreting import accept_new_numpy
from scorer_cases import SEED, make, oracle, relative

from mixerlang.kernels.scorer import launch, packing
from mixerlang.kernels.scorer.network import Network

SMALL = Network(2, 16, 16, (16, 8, 4))

CASES: dict[str, tuple[Any, ...]] = {
    # network, batch, tokens, dropped of 65,536, cu_seqlens
    "plain, several turns": (SMALL, 2, 130, 0, None),
    "one token, dropout": (SMALL, 1, 1, 6554, None),
    "dropout": (SMALL, 2, 60, 20000, None),
    "packed, odd channels": (Network(1, 20, 12, (20, 10, 5)), 1, 70, 6554, [0, 1, 20, 21, 25, 70]),
    "two programs": (Network(1, 16, 16, (16, 8), (3, 3), (2, 2)), 1, 140, 6554, [0, 60, 69, 140]),
    "one layer of five taps": (Network(1, 16, 16, (70,), (5,), (1,)), 1, 40, 30000, None),
    "one tap, then far apart": (Network(2, 80, 24, (16, 70), (1, 3), (3, 4)), 1, 40, 0, None),
    "no common stride": (Network(1, 8, 20, (16, 9), (3, 5), (3, 2)), 1, 90, 6554, None),
}


def run(case: tuple[Any, ...], dtype: torch.dtype) -> list[float]:
    network, batch, tokens, dropped, edges = case
    inputs = make(network, tokens, batch, dtype)
    cu_seqlens = None if edges is None else torch.tensor(edges)
    dz = torch.randn(batch, network.heads, tokens)
    expected = oracle(inputs, network, dz, dropped, cu_seqlens)
    packed = launch.pack(inputs.weights, inputs.biases, network, dtype)
    assert all(map(torch.equal, packed, packing.pack(*inputs[2:], network, dtype)))
    k, v = inputs.k.detach(), inputs.v.detach()
    call = launch.Call.of(network, tokens, dropped, torch.tensor(SEED), cu_seqlens)
    z, saved = launch.forward(k, v, packed, call, save=True)
    dk, _, gradient = launch.backward(dz, (None, v), k, v, packed, saved, call)
    more, dv, again = launch.backward(dz, (k, None), k, v, packed, saved, call)
    assert torch.equal(gradient, again)
    found = [z, dk, dv, *packing.unflatten(gradient, network), more]
    expected.append(expected[1] + k.double())
    return [relative(a, b) for a, b in zip(found, expected, strict=True)]


def run_rows(dtype: torch.dtype) -> list[float]:
    """How far logits of a stretch between rings are from those of the whole sequence, and from what
    stood there where none were asked for."""
    network, tokens, count = SMALL, 90, 20
    inputs = make(network, tokens, 3, dtype)
    packed = packing.pack(inputs.weights, inputs.biases, network, dtype)
    k, v = inputs.k.detach(), inputs.v.detach()
    whole, _ = launch.forward(k, v, packed, launch.Call(network))
    begin = torch.tensor([0, -1, 41], dtype=torch.int32)
    rings = [torch.full((3, network.heads, size, 16), torch.nan, dtype=dtype) for size in (32, 37)]
    z = torch.zeros(3, network.heads, 41)
    for n, first in enumerate(begin.tolist()):
        there = torch.arange(max(0, first - 6), first + count + 6)
        for ring, x in zip(rings, (k, v), strict=True):
            ring[n][:, there % ring.shape[2]] = x[n, there].transpose(0, 1)
    launch.rows(*rings, z, packed, network, begin, count)
    errors = []
    for n, first in enumerate(begin.tolist()):
        expected = torch.zeros(network.heads, 41)
        if first >= 0:
            there = torch.arange(first, first + count)
            expected[:, there % 41] = whole[n][:, there]
        errors.append(float((z[n] - expected).abs().max()))
    return errors


if __name__ == "__main__":
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)  # with it, new tensors hold NaN
    found = {name: run(case, torch.float32) for name, case in CASES.items()}
    found["rings"] = run_rows(torch.float32)
    for name, case in CASES.items():
        if case[0].rolls(2):
            found[f"{name}, float16"] = run(case, torch.float16)
    print(json.dumps(found | {"rings, float16": run_rows(torch.float16)}))
