"""Run the eviction kernels in Triton's interpreter, and print what they get wrong.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_eviction.py starts it. Prints a JSON object, case -> names of the fields of Intervals
that differ from the oracle's where they say something.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from interpreting import accept_new_numpy
from torch import Tensor

from mixerlang.kernels.attention.intervals import SEGMENT
from mixerlang.kernels.eviction import cut, launch, reference

CASES: dict[str, tuple[Any, ...]] = {
    # scores, (batch, heads, tokens), window, budget, sinks, floor, cu_seqlens
    "one token": ("random", (2, 1, 1), 3, 1, 1, 0.0, None),
    "every token replaces one": ("rising", (1, 1, 600), 9, 300, 4, 0.0, None),
    "every token is refused": ("falling", (1, 1, 600), 9, 60, 0, 0.0, None),
    "ties": ("ties", (2, 1, 300), 300, 200, 1, 0.0, None),
    "a budget of one": ("random", (1, 1, 300), 1, 1, 0, -math.inf, None),
    "all sinks": ("random", (1, 1, 300), 128, 4, 4, 0.0, None),
    "nothing exceeds the budget": ("random", (1, 1, 600), 40, 512, 2, 0.0, None),
    "runs of runs": ("random", (1, 2, 1700), 40, 7, 2, 0.0, None),
    "uncapped": ("ties", (1, 2, 900), 40, None, 2, 0.5, None),
    "packed": ("random", (1, 2, 500), 40, 90, 2, 0.0, [0, 1, 128, 128, 260, 500]),
    "packed runs": ("ties", (1, 1, 1500), 40, 30, 0, -math.inf, [0, 100, 110, 1300, 1500]),
    "packed and uncapped": ("random", (1, 2, 400), 40, None, 2, 0.0, [0, 0, 129, 400]),
}


def scores(kind: str, shape: tuple[int, int, int]) -> Tensor:
    """Half precision and strides too: what a caller may bring."""
    index = torch.arange(shape[-1]).float().expand(shape)
    if kind in ("rising", "falling"):
        return index + 1 if kind == "rising" else shape[-1] - index
    if kind == "ties":
        z = torch.randint(-1, 4, shape).bfloat16()
    else:
        z = torch.randn(*shape[:2], 2 * shape[-1])[..., ::2]
    for special in (math.nan, math.inf, -math.inf, -0.0):
        z[torch.rand(shape) < 0.02] = special
    return z


def differing(found: tuple[Tensor, ...], wanted: tuple[Tensor | None, ...]) -> list[str]:
    """Names of the fields that differ; unspecified columns are left out."""
    death, kept, counts, snapshots, alive = wanted
    assert death is not None and kept is not None and counts is not None
    said = torch.arange(death.shape[-1]) < counts[..., -1:]
    same = {
        "death": torch.equal(found[0], death),
        "kept": torch.equal(found[1][said], kept[said]),
        "counts": torch.equal(found[2], counts),
    }
    if snapshots is not None and alive is not None:
        said = torch.arange(snapshots.shape[-1]) < alive[..., None]
        same["snapshots"] = torch.equal(found[3][said], snapshots[said])
        same["alive"] = torch.equal(found[4], alive)
    return [name for name, right in same.items() if not right]


def run(case: tuple[Any, ...]) -> list[str]:
    kind, shape, window, budget, sinks, floor, edges = case
    torch.manual_seed(0)
    z, cu_seqlens = scores(kind, shape), None if edges is None else torch.tensor(edges)
    found = launch.intervals(z, window, budget, sinks, floor, cu_seqlens)
    rule = (window, budget, sinks, floor, cu_seqlens)
    return differing(found, reference.intervals(z.float(), *rule, segment=SEGMENT))


if __name__ == "__main__":
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)  # fresh tensors hold the largest integer
    accept_new_numpy()
    launch.LENGTH = launch.SPAN = cut.LENGTH = cut.SPAN = 2  # short inputs have runs of runs too
    print(json.dumps({name: run(case) for name, case in CASES.items()}))
