"""Every primitive's costs are what runs: forward, backward and a step, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest
from counting import forward_flops, graph_of_mixer, step_flops, training_flops
from test_every_mixer import MIXERS

from mixerlang.algebra import Count, at, symbol
from mixerlang.ir.graph import Graph
from mixerlang.primitives.part import Flops, Part, Workload, total
from mixerlang.runtime.load import load

LENGTHS, TRAINED = (1, 5, 23), (1, 23)
"""Below, at and above windows, budgets and blocks."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))


def parts_of(graph: Graph, work: Workload, step: bool = False) -> list[Part]:
    found = []
    for node in graph:
        width = graph.width(node)
        found += node.op.step_parts(width, work) if step else node.op.parts(width, work)
    return found


def forward(graph: Graph, work: Workload, step: bool = False) -> Flops:
    return total(part.forward for part in parts_of(graph, work, step))


def backward(graph: Graph, work: Workload) -> Flops:
    return total(part.backward for part in parts_of(graph, work))


@pytest.mark.parametrize("name", MIXERS)
def test_dense_flops(name: str, tmp_path: Path) -> None:
    graph = graph_of_mixer(tmp_path, MIXERS[name])
    model = load(tmp_path / "model.mix")
    for batch, length in ((2, length) for length in LENGTHS):
        work, training = Workload(batch, length), Workload(batch, length, training=True)
        assert forward(graph, work).dense == forward_flops(model, batch, length), length
        if length in TRAINED:
            said = forward(graph, training).dense, backward(graph, training).dense
            assert said == training_flops(model, batch, length), length
        assert forward(graph, work, step=True).dense == step_flops(model, batch, length), length


@pytest.mark.parametrize("name", MIXERS)
def test_formulas_give_what_numbers_do(name: str, tmp_path: Path) -> None:
    """Every count and every byte, for symbols and for integers."""
    graph = graph_of_mixer(tmp_path, MIXERS[name])
    for kernels, training in ((False, False), (True, True)):
        general = Workload(symbol("B"), symbol("T"), 2, kernels, training)
        formulas = flat(graph, general)
        for batch, length in ((1, 1), (2, 23), (1, 300)):
            values = {"B": batch, "T": length}
            said = flat(graph, Workload(batch, length, 2, kernels, training))
            assert [at(count, values) for count in formulas] == said, length


def flat(graph: Graph, work: Workload) -> list[Count]:
    found: list[Count] = []
    for part in [*parts_of(graph, work), *parts_of(graph, work, step=True)]:
        for flops in (part.forward, part.backward):
            found += [flops.useful, flops.dense]
        found += [part.read, part.written, part.saved]
    for node in graph:
        width = graph.width(node)
        found += [node.op.cache_bytes(width, work), node.op.bound_bytes(width, work)]
    return found
