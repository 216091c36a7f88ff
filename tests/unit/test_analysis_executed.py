"""Executed FLOPs are those of the blocks that the kernels' loops visit."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from counting import graph_of_mixer

from mixerlang.algebra import number, symbol
from mixerlang.analysis import analyze
from mixerlang.analysis.blocks import by_key, by_query
from mixerlang.codegen.serve import softmaxes
from mixerlang.primitives.attention import Attention
from mixerlang.primitives.part import Workload
from mixerlang.primitives.recurrence import Recurrence

LENGTHS = (1, 15, 64, 65, 127, 128, 129, 300, 511, 512, 640)


def walked(
    length: int, queries: int, keys: int, reach: int | None, unit: int, extra: int | None
) -> int:
    """By the loop of by_query.py.jinja, program by program."""
    total = 0
    for t0 in range(0, length, queries):
        low = 0 if reach is None else max(0, (t0 - reach) // unit) * unit
        end = min(t0 + queries, length)
        total += -(-(end - low) // keys)
        total += low // keys if extra is None else min(extra, low // keys)
    return total


def walked_by_key(length: int, queries: int, keys: int, window: int | None) -> int:
    """By the loop of backward_kv.py.jinja."""
    total = 0
    for j0 in range(0, length, keys):
        last = min(j0 + keys, length) - 1
        end = length if window is None else min(last + window, length)
        total += -(-(end - j0 // queries * queries) // queries)
    return total


@pytest.mark.parametrize(("queries", "keys"), [*product((16, 64, 128), (16, 32, 64))])
def test_blocks_are_those_of_the_loops(queries: int, keys: int) -> None:
    T = symbol("T")
    for reach, unit, extra in ((None, keys, 0), (0, keys, 0), (7, keys, 0), (129, keys, 2),
                               (64, 128, 3), (300, 128, None), (40, 128, 0)):  # fmt: skip
        formula = by_query(T, queries, keys, reach, unit, extra)
        for length in LENGTHS:
            expected = walked(length, queries, keys, reach, unit, extra)
            assert by_query(length, queries, keys, reach, unit, extra) == expected
            assert number(formula, T=length) == expected
    for window in (None, 1, 8, 64, 200):
        formula = by_key(T, queries, keys, window)
        for length in LENGTHS:
            expected = walked_by_key(length, queries, keys, window)
            assert by_key(length, queries, keys, window) == expected
            assert number(formula, T=length) == expected


KEEPS = ("full", "window(100)", "window(64) | sinks(4)", "strided(7) | window(9)", "dilated(9, 3)",
         "window(64) | learned(budget=70)", "window(64) | evict(norm, budget=20)", "evict(tova, 9)")


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("heads", ["heads=2, head_dim=64", "heads=4, kv_heads=2, head_dim=80"])
def test_executed_covers_what_is_useful(keep: str, heads: str, tmp_path: Path) -> None:
    """Kernels leave no visible pair out."""
    graph = graph_of_mixer(tmp_path, f"attention({heads}, keep={keep})")
    for length in (1, 100, 1000, 5000):
        total = analyze(graph, 2, length, "bfloat16").total
        for name in ("forward", "training", "backward"):
            useful, executed = (total.number(f"flops.{name}.{c}") for c in ("useful", "executed"))
            assert executed >= useful, (length, name)


def test_kernels_execute_less_than_the_dense_form(tmp_path: Path) -> None:
    graph = graph_of_mixer(tmp_path, "attention(heads=2, head_dim=64, keep=window(100))")
    total = analyze(graph, 1, 20_000, "bfloat16").total
    for name in ("forward", "backward"):
        executed, dense = (total.number(f"flops.{name}.{c}") for c in ("executed", "dense"))
        assert executed < dense / 5


def test_forward_of_a_window_by_hand(tmp_path: Path) -> None:
    """Tiles of 64 queries by 64 keys: the first program visits one block, each other one two."""
    graph = graph_of_mixer(tmp_path, "attention(heads=2, head_dim=64, keep=window(64))")
    [op] = [node.op for node in graph if isinstance(node.op, Attention)]
    assert [softmax.route().op for softmax in softmaxes(op)] == ["attention"]
    total = analyze(graph, 1, 640, "bfloat16").total
    linear = total.number("flops.forward.dense") - 2 * 2 * 640 * 640 * 128
    blocks = 1 + 9 * 2
    assert total["flops.forward.executed"] == linear + 2 * blocks * 64 * 64 * 2 * 128


def test_executed_chunks_of_a_recurrence_by_hand(tmp_path: Path) -> None:
    """2 heads of 32 x 16: 65 tokens are two chunks of 64, run again in the backward pass."""
    graph = graph_of_mixer(tmp_path, "recurrence(2, key_dim=32, value_dim=16, update=delta)")
    total = analyze(graph, 3, 65, "bfloat16").total
    core = 2 * 3 * 128 * 2 * (3 * 32 * 16 + 64 * (3 * 32 + 2 * 16))
    [op] = [node.op for node in graph if isinstance(node.op, Recurrence)]
    for name, times in (("forward", 1), ("backward", 3)):
        parts = op.parts(12, Workload(3, 65, training=True))
        flops = [p.backward if name == "backward" else p.forward for p in parts]
        [dense] = [f.dense for f, p in zip(flops, parts, strict=True) if p.name == "recurrence"]
        others = total.number(f"flops.{name}.dense") - dense
        assert total[f"flops.{name}.executed"] == others + times * core


def test_what_no_kernel_serves_executes_its_dense_form(tmp_path: Path) -> None:
    graph = graph_of_mixer(tmp_path, "recurrence(2, key_dim=8, features=hedgehog, conv=4)")
    total = analyze(graph, 2, 100).total
    for name in ("forward", "backward"):
        assert total[f"flops.{name}.executed"] == total[f"flops.{name}.dense"]
