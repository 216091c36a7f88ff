"""Eviction as intervals on a GPU, against the oracle: awkward shapes and scores, long sequences.

Fresh tensors hold the largest integer, so that an element that no program writes is seen.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from mixerlang.kernels.attention.intervals import SEGMENT, Intervals
from mixerlang.kernels.eviction import reference
from mixerlang.kernels.eviction.op import intervals

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]

LENGTHS = [1, 5, 127, 128, 129, 300, 700, 1500, 2048, 5000]
BUDGETS = [None, 1, 7, 60, 130, 256, 300, 512]


def scores(kind: str, rows: tuple[int, int], tokens: int) -> Tensor:
    """(*rows, tokens): random, tied, rising or falling, a few of them special."""
    index = torch.arange(tokens, device="cuda").float().expand(*rows, -1)
    z = {
        "random": torch.randn(*rows, tokens, device="cuda"),
        "ties": torch.randint(-1, 5, (*rows, tokens), device="cuda").float(),
        "rising": index + 1,
        "falling": tokens - index,
    }[kind].clone()
    for special in (math.nan, math.inf, -math.inf, -0.0):
        z[torch.rand_like(z) < 0.02] = special
    return z


def differing(found: Intervals, wanted: tuple[Any, ...]) -> list[str]:
    """Names of the fields that differ; unspecified columns are left out."""
    death, kept, counts, snapshots, alive = wanted
    said = torch.arange(death.shape[-1], device="cuda") < counts[..., -1:]
    same = {
        "death": torch.equal(found.death, death),
        "kept": torch.equal(found.kept[said], kept[said]),
        "counts": torch.equal(found.counts, counts),
    }
    if snapshots is not None:
        assert found.snapshots is not None and found.alive is not None
        said = torch.arange(snapshots.shape[-1], device="cuda") < alive[..., None]
        same["snapshots"] = torch.equal(found.snapshots[said], snapshots[said])
        same["alive"] = torch.equal(found.alive, alive)
    return [name for name, right in same.items() if not right]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["random", "ties", "rising", "falling"])
def test_random_cases(kind: str, packed: bool) -> None:
    torch.manual_seed(0)
    draw = random.Random(f"{kind} {packed}")
    for _ in range(25):
        tokens, budget = draw.choice(LENGTHS), draw.choice(BUDGETS)
        rows = (1, 3) if packed else draw.choice([(1, 1), (2, 2), (1, 3)])
        sinks, window = min(draw.choice([0, 1, 4]), budget or 9), draw.choice([1, 9, 128, 2000])
        floor, cu_seqlens = draw.choice([0.0, 0.5, -math.inf]), None
        if packed:
            cuts = sorted(draw.randint(0, tokens) for _ in range(draw.choice([1, 5, 40])))
            cu_seqlens = torch.tensor([0, *cuts, tokens], device="cuda", dtype=torch.int32)
        z = scores(kind, rows, tokens)
        rule = {"window": window, "budget": budget, "sinks": sinks, "floor": floor}
        found = intervals(z, **rule, cu_seqlens=cu_seqlens)
        wanted = reference.intervals(z, **rule, cu_seqlens=cu_seqlens, segment=SEGMENT)
        assert not differing(found, wanted), (tokens, rows, rule, cu_seqlens)


@pytest.mark.parametrize("kind", ["rising", "ties"])
@pytest.mark.parametrize(("tokens", "budget"), [(32768, 512), (40000, 8192), (1 << 20, 512)])
def test_long_sequences(kind: str, tokens: int, budget: int) -> None:
    """Deaths against the oracle; the lists against the deaths, at some segments."""
    torch.manual_seed(1)
    z, window, sinks = scores(kind, (1, 2), tokens), 768, 4
    found = intervals(z, window=window, budget=budget, sinks=sinks)
    death = reference.death_times(z, window, budget, sinks).clamp(max=2**31 - 1)
    assert torch.equal(found.death, death.int())
    stays = death > torch.arange(tokens, device="cuda") + window
    assert found.snapshots is not None and found.alive is not None
    draw = random.Random(0)
    segments = tokens // SEGMENT
    for segment in {0, 1, segments - 1, *(draw.randrange(segments) for _ in range(30))}:
        head = segment * SEGMENT
        for head_index in range(2):
            row = (death[0, head_index, :head] > head - 1 + window).nonzero().flatten().int()
            assert found.alive[0, head_index, segment] == len(row)
            assert torch.equal(found.snapshots[0, head_index, segment, : len(row)], row)
            assert found.counts[0, head_index, segment] == stays[0, head_index, :head].sum()
    for head_index in range(2):
        row = stays[0, head_index].nonzero().flatten().int()
        assert torch.equal(found.kept[0, head_index, : len(row)], row)


def test_same_bits_under_a_graph() -> None:
    z = scores("random", (1, 4), 5000)
    rule: dict[str, Any] = {"window": 700, "budget": 300, "sinks": 4}
    wanted = intervals(z.double().float(), **rule)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = intervals(z, **rule)
    z.copy_(scores("rising", (1, 4), 5000))
    graph.replay()
    assert torch.equal(found.death, intervals(z, **rule).death)
    assert not torch.equal(found.death, wanted.death)
