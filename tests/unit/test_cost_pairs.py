"""Useful pairs are the visible ones, counted one by one from what each keep means."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from counting import graph_of_mixer

from mixerlang.algebra import number, symbol
from mixerlang.primitives import keep as k
from mixerlang.primitives.attention import Attention, branches
from mixerlang.primitives.keep_pairs import visible_pairs

KEEPS = [
    "full", "window(8)", "window(1)", "window(64)", "window(8) | sinks(4)", "sinks(4)",
    "strided(4)", "strided(1)", "dilated(4, 2)", "dilated(3, 5)", "window(6) | strided(4)",
    "window(12) | strided(3) | sinks(2)", "window(8) | dilated(4, 3) | sinks(9)",
    "window(16) & strided(2)", "window(16) & (sinks(4) | strided(2))", "window(3) | window(9)",
    "dilated(4, 2) & dilated(3, 3)", "(window(9) | strided(4)) & (sinks(6) | strided(6))",
    "window(8) | learned(budget=6, sinks=2)", "window(12) | learned(budget=1, sinks=0)",
    "window(8) | learned(budget=40)", "window(8) | evict(tova, budget=5)",
    "window(1) | evict(norm, budget=5)", "evict(tova, budget=5)", "evict(tova, budget=1)",
    "blocks(8, top=4)", "blocks(3, top=3)", "blocks(5, top=9)",
    "blocks(4, top=2, forced_first=1, forced_last=1)",
    "compressed(8)", "compressed(8, stride=4)", "compressed(5, stride=1)",
]  # fmt: skip
UNSURE = ["window(5) | blocks(4, top=3)", "blocks(4, top=3) & window(9)",
          "strided(2) | blocks(3, top=3) | sinks(2)"]
"""What the data choose from a union: the count is a bound."""

LENGTHS = [*range(1, 30), 47, 64, 65]


def keep_of(folder: Path, text: str) -> k.Keep:
    graph = graph_of_mixer(folder, f"attention(heads=2, head_dim=8, keep={text})")
    [op] = [node.op for node in graph if isinstance(node.op, Attention)]
    [branch] = branches(op.keep)
    return branch


def counted(keep: k.Keep, length: int, seed: int = 0) -> int:
    """Visible pairs of one sequence, with the data drawn."""
    rng = random.Random(seed)
    evicting = [p for p in getattr(keep, "parts", (keep,)) if isinstance(p, k.Learned | k.Evict)]
    if evicting:
        return sum(map(len, held(keep, evicting[0], length, rng)))
    if isinstance(keep, k.Compressed):
        stride = keep.stride or keep.size
        ends = range(keep.size - 1, length, stride)
        return sum(end <= t for t in range(length) for end in ends)
    total = 0
    for t in range(length):
        chosen = {id(p): choice(p, t, rng) for p in blocks_of(keep)}
        total += sum(sees(keep, t, j, chosen) for j in range(t + 1))
    return total


def held(
    keep: k.Keep, rule: k.Learned | k.Evict, length: int, rng: random.Random
) -> list[set[int]]:
    """What each query sees where every token is a candidate."""
    window = next((p.size for p in getattr(keep, "parts", ()) if isinstance(p, k.Window)), 1)
    budget = rule.budget if isinstance(keep, k.Union) else rule.budget - 1
    sinks = rule.sinks if isinstance(rule, k.Learned) else 0
    slots: dict[int, float] = {}
    seen = []
    for t in range(length):
        if t >= window:
            left = t - window
            slots[left] = float("inf") if left < sinks else rng.random()
            if len(slots) > budget:
                slots.pop(min(slots, key=lambda j: slots[j]))
        seen.append({*range(max(0, t - window + 1), t + 1), *slots})
    return seen


def blocks_of(keep: k.Keep) -> list[k.Blocks]:
    if isinstance(keep, k.Blocks):
        return [keep]
    return [leaf for part in getattr(keep, "parts", ()) for leaf in blocks_of(part)]


def choice(keep: k.Blocks, t: int, rng: random.Random) -> set[int]:
    current = t // keep.size
    forced = {b for b in range(current + 1)
              if b < keep.forced_first or b > current - keep.forced_last}
    others = [b for b in range(current + 1) if b not in forced]
    return forced | set(rng.sample(others, min(len(others), keep.top - len(forced))))


def sees(keep: k.Keep, t: int, j: int, chosen: dict[int, set[int]]) -> bool:
    match keep:
        case k.Full():
            return True
        case k.Window():
            return t - j < keep.size
        case k.Sinks():
            return j < keep.count
        case k.Strided():
            return (t - j) % keep.stride == 0
        case k.Dilated():
            return t - j < keep.size * keep.rate and (t - j) % keep.rate == 0
        case k.Blocks():
            return j // keep.size in chosen[id(keep)]
        case k.Union():
            return any(sees(part, t, j, chosen) for part in keep.parts)
        case k.Intersection():
            return all(sees(part, t, j, chosen) for part in keep.parts)
    raise AssertionError(keep)


@pytest.mark.parametrize("text", KEEPS)
def test_pairs_of_every_keep(text: str, tmp_path: Path) -> None:
    keep = keep_of(tmp_path, text)
    formula = visible_pairs(keep, symbol("T"))
    assert formula.bound == ("learned" in text)
    for length in LENGTHS:
        pairs = counted(keep, length)
        assert visible_pairs(keep, length).count == pairs == number(formula.count, T=length)


@pytest.mark.parametrize("text", UNSURE)
def test_pairs_that_the_data_decide(text: str, tmp_path: Path) -> None:
    keep = keep_of(tmp_path, text)
    for length in LENGTHS[::4]:
        said = visible_pairs(keep, length)
        assert said.bound
        most = max(counted(keep, length, seed) for seed in range(3))
        assert most <= said.count <= length * (length + 1) // 2


def test_training_evicts_nothing_unless_capped(tmp_path: Path) -> None:
    for text, all_of_it in (("window(8) | learned(budget=6)", True),
                            ("window(8) | learned(budget=6, capped=true)", False),
                            ("window(8) | evict(h2o, budget=6)", True)):
        keep = keep_of(tmp_path, text)
        trained = visible_pairs(keep, 40, training=True).count
        assert (trained == 40 * 41 // 2) == all_of_it
        assert all_of_it or trained == visible_pairs(keep, 40).count
