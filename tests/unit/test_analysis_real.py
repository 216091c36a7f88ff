"""What the analyzer says is what the compiled models have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from counting import forward_flops, graph_of, graph_of_mixer, step_flops, training_flops

from mixerlang.analysis import BACKENDS, analyze
from mixerlang.nn import backend
from mixerlang.runtime.load import load

ROOT = Path(__file__).resolve().parents[2]
PAPER = sorted((ROOT / "specs/paper").glob("*.mix"))
TINY = sorted((ROOT / "specs/tiny").glob("*.mix"))

KEEPS = [
    "full",
    "window(8)",
    "sinks(4)",
    "strided(4)",
    "dilated(4, 2)",
    "window(8) | sinks(2)",
    "window(16) & strided(2)",
    "window(16) & (sinks(4) | strided(2))",
    "window(8) | learned(budget=6, sinks=2)",
    "window(8) | learned(budget=6, scorer=cnn(kernels=[5, 3], dilations=[1, 2]))",
    "window(8) | evict(tova, budget=5)",
    "window(8) | evict(h2o, budget=5)",
    "window(8) | evict(norm, budget=5)",
    "window(8) | evict(random, budget=5)",
    "evict(tova, budget=5)",
    "blocks(8, top=4)",
    "blocks(8, top=4, score=mlp)",
    "window(5) | blocks(8, top=4)",
    "compressed(8)",
    "compressed(8, stride=4, map=mlp)",
    "gated(compressed(8), blocks(8, top=4), window(12))",
    "gated(compressed(8, stride=4, map=mlp), blocks(8, top=4, score=compressed), window(12))",
    "gated(window(8) | learned(budget=6, sinks=2), window(12) | evict(tova, budget=3))",
    "by_head([full, window(8)])",
    "by_head([window(8), window(8)])",
    "by_head([window(8) | learned(budget=6, sinks=2), window(8)])",
]
BYTES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(autouse=True, scope="module")
def folder_of_generated_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def assert_same_caches(path: Path, lengths: tuple[int, ...]) -> None:
    graph, model = graph_of(path), load(path, device="meta")
    for way, length in itertools.product(BACKENDS, lengths):
        for name, dtype in BYTES.items():
            with backend.forced(way):
                cache = model.new_cache(3, max_length=length, dtype=dtype)
            said = analyze(graph, 3, length, name, way).total["cache_bytes"]
            assert said == cache.nbytes, (way, length, name)


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_flops_of_the_tiny_models(path: Path) -> None:
    graph, model = graph_of(path), load(path)
    for batch, length in ((2, 20), (1, 90)):  # within windows and budgets, and beyond
        total = analyze(graph, batch, length).total
        assert total["flops.step.dense"] == step_flops(model, batch, length)
        passes = total["flops.training.dense"], total["flops.backward.dense"]
        assert passes == training_flops(model, batch, length)


PAIRS = {
    "window(64)": lambda length: visible(length, 64),
    "window(32) | learned(budget=16)": lambda length: (
        visible(length, 32) + visible(length - 32, 16)
    ),
}
"""Pairs of query and key that count in a head, by keep."""


def visible(length: int, most: int) -> int:
    """Of queries that see up to `most` keys."""
    return sum(min(query + 1, most) for query in range(max(length, 0)))


@pytest.mark.parametrize("keep", PAIRS)
def test_flops_through_the_kernels(keep: str, tmp_path: Path) -> None:
    """Masked pairs left out, all else as plain PyTorch has it."""
    graph = graph_of_mixer(tmp_path, f"attention(heads=4, head_dim=16, keep={keep})")
    model, batch, length = load(tmp_path / "model.mix"), 2, 150
    left_out = 2 * batch * 4 * (PAIRS[keep](length) - length * length) * 2 * 16
    with backend.forced("kernels"):
        counted = forward_flops(model, batch, length)
    assert counted == forward_flops(model, batch, length) + left_out
    assert counted == analyze(graph, batch, length).total["flops.forward.useful"]


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_cache_of_the_tiny_models(path: Path) -> None:
    assert_same_caches(path, (1, 5, 100, 700))


@pytest.mark.parametrize("keep", KEEPS)
def test_costs_of_every_keep(keep: str, tmp_path: Path) -> None:
    path = tmp_path / "keep.mix"
    path.write_text("model m { vocab = 256; dim = 32; context = 64; layers = ["
                    f"attention(heads=4, kv_heads=2, value_dim=12, keep={keep})] }}")
    assert_same_caches(path, (1, 3, 7, 8, 20, 300))
    graph, model = graph_of(path), load(path)
    assert graph.parameters() == model.num_parameters()
    for batch, length in ((2, 48), (1, 53), (1, 5)):
        said = analyze(graph, batch, length).total["flops.forward.dense"]
        assert said == forward_flops(model, batch, length)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_parameters_of_the_paper_models(path: Path) -> None:
    model = load(path, device="meta")
    assert model.num_parameters() == graph_of(path).parameters()
