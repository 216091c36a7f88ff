"""Eviction as intervals, against a heap and against a loop over queries."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.kernels.eviction import reference as ref


def heap_deaths(z, window, budget, sinks):
    """Death times by a heap whose least entry is the latest of the lowest."""
    death, heap = {}, []
    for j, score in enumerate(z):
        if j < sinks:
            death[j] = ref.NEVER
        elif not score > 0:
            death[j] = j + window
        else:
            death[j] = ref.NEVER
            heappush(heap, (score, -j))
            if len(heap) > budget - sinks:
                _, loser = heappop(heap)
                death[-loser] = j + window
    return [death[j] for j in range(len(z))]


SCORES = st.lists(st.integers(-2, 3), min_size=1, max_size=40)


@given(SCORES, st.integers(1, 9), st.integers(0, 4), st.integers(0, 8))
def test_death_times(scores, window, sinks, more):
    z = torch.tensor(scores).float()
    death = ref.death_times(z, window, sinks + more, sinks)
    assert death.tolist() == heap_deaths(scores, window, sinks + more, sinks)


@given(SCORES, st.integers(0, 6), st.integers(1, 5), st.integers(0, 40))
def test_top_in_blocks_and_carried_over(scores, slots, block, cut):
    """Any block size, and any cut with what is held carried over, give the same fates."""
    z = torch.tensor(scores).float()
    z = z.masked_fill(z <= 0, -torch.inf)
    none = z[:0]
    _, whole = ref.stream_top(none, z, slots)
    assert torch.equal(ref.stream_top(none, z, slots, block)[1], whole)

    cut = min(cut, len(z))
    _, before = ref.stream_top(none, z[:cut], slots)
    held = z[:cut].masked_fill(before < cut, -torch.inf)
    fate_held, after = ref.stream_top(held, z[cut:], slots, block)
    stays = before == cut
    joined = torch.cat([torch.where(stays, cut + fate_held, before), cut + after])
    assert torch.equal(joined, whole)


def test_deaths_per_head():
    z = torch.randn(2, 3, 300)
    death = ref.death_times(z, 20, 15, 2)
    for n, g in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        assert death[n, g].tolist() == heap_deaths(z[n, g].tolist(), 20, 15, 2)


# ------------------------------------------------------------------------------------ intervals

SPECIAL = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1.0, 2.0, -1.0])
EDGES = st.lists(st.integers(0, 30), max_size=3)


def slots_in_time(z, edges, window, budget, sinks, floor):
    """After each arrival: the positions in slots, as a sorted list."""
    found = []
    for start, end in pairwise(edges):
        held = []
        for j in range(start, end):
            pinned = j - start < sinks
            if pinned or z[j] > floor:
                held.append((-math.inf if pinned else -z[j], j))
            held = sorted(held)[:budget]
            found.append(sorted(position for _, position in held))
    return found


@given(
    st.lists(SPECIAL, min_size=1, max_size=30),
    EDGES,
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(1, 6)),
    st.integers(0, 2),
    st.sampled_from([0.0, 1.0, -math.inf]),
    st.integers(1, 8),
)
def test_intervals(scores, cuts, window, budget, sinks, floor, segment):
    tokens = len(scores)
    edges = [0, *sorted(min(cut, tokens) for cut in cuts), tokens]
    sinks = min(sinks, budget or sinks)
    z = torch.tensor(scores).view(1, 1, -1)
    death, kept, counts, snapshots, alive = ref.intervals(
        z, window, budget, sinks, floor, torch.tensor(edges), segment=segment
    )
    held = slots_in_time(scores, edges, window, budget, sinks, floor)
    last = {j: max((m for m in range(tokens) if j in held[m]), default=-1) for j in range(tokens)}
    for start, end in pairwise(edges):
        for j in range(start, end):
            stays = torch.iinfo(torch.int32).max
            dies = window + max(j, last[j] + 1)
            assert death[0, 0, j] == (stays if last[j] == end - 1 else dies)
    wanted = [j for j in range(tokens) if last[j] >= j]
    assert kept[0, 0, : len(wanted)].tolist() == wanted
    heads = range(0, tokens + segment, segment)
    assert counts[0, 0].tolist() == [sum(j < head for j in wanted) for head in heads]
    if snapshots is None or alive is None:
        assert budget is None and snapshots is None and alive is None
        return
    rows = [[], *(held[head - 1] for head in range(segment, tokens, segment))]
    assert alive[0, 0].tolist() == [len(row) for row in rows]
    assert [r[:n].tolist() for r, n in zip(snapshots[0, 0], alive[0, 0], strict=True)] == rows


def test_float64_scores_are_compared_as_they_are():
    z = 1 + torch.arange(8, dtype=torch.float64).view(1, 1, -1) * 1e-12
    death = ref.intervals(z, 3, 2, segment=4)[0]
    assert death[0, 0, :6].tolist() == [5, 6, 7, 8, 9, 10]
