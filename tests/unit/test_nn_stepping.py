"""When a kept graph of a step serves again, and what it reads outlives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixerlang.nn import stepping
from mixerlang.nn.keeps import Cnn
from mixerlang.nn.mixer import Cache
from mixerlang.nn.scorer import CnnScorer
from mixerlang.nn.stepping import GraphStep


def new_cache(batch: int = 2) -> Cache:
    return Cache({"": {"k": torch.zeros(batch, 3)}}, torch.zeros(batch, dtype=torch.int64), 8)


def test_a_graph_serves_the_weights_and_shapes_that_it_was_made_for() -> None:
    model = nn.Linear(3, 3)
    kept = GraphStep(model, new_cache())  # type: ignore[arg-type]
    assert kept.fits(model, new_cache())  # type: ignore[arg-type]
    assert not kept.fits(model, new_cache(3))  # type: ignore[arg-type]
    with torch.no_grad():
        model.weight.mul_(2)
    assert not kept.fits(model, new_cache())  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["inference", "autocast", "precision"])
def test_a_graph_serves_the_modes_that_it_was_made_in(mode: str) -> None:
    """Tensors of inference mode refuse to be changed elsewhere, and autocast is in the graph."""
    model = nn.Linear(3, 3)
    plain = GraphStep(model, new_cache())  # type: ignore[arg-type]
    precision = torch.get_float32_matmul_precision()
    try:
        if mode == "precision":
            torch.set_float32_matmul_precision("high")
        inference, autocast = mode == "inference", mode == "autocast"
        with (
            torch.inference_mode(inference),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            other = GraphStep(model, new_cache())  # type: ignore[arg-type]
            assert not plain.fits(model, new_cache())  # type: ignore[arg-type]
            assert other.fits(model, new_cache())  # type: ignore[arg-type]
    finally:
        torch.set_float32_matmul_precision(precision)
    assert not other.fits(model, new_cache())  # type: ignore[arg-type]
    assert plain.fits(model, new_cache())  # type: ignore[arg-type]


def test_a_capture_reads_no_weights_that_autocast_holds() -> None:
    x, weight = torch.ones(2, 2), nn.Parameter(torch.ones(2, 2))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        x @ weight  # autocast holds what it rounded
        weight.fill_(3)
        assert (x @ weight).tolist() == [[2, 2], [2, 2]]
        with stepping._uncached_autocast(x.device):
            y = x @ weight
    assert y.dtype == torch.bfloat16 and y.tolist() == [[6, 6], [6, 6]]


def test_packed_weights_outlive_a_step_in_another_dtype() -> None:
    """A graph in bfloat16 reads them wherever they were when it was made."""
    scorer = CnnScorer(2, 12, 8, Cnn())
    first = scorer.packed(torch.bfloat16)
    assert scorer.packed(torch.float32).packed.weights.dtype == torch.float32
    assert scorer.packed(torch.bfloat16) is first
    with torch.no_grad():
        scorer.proj.weight.mul_(2)
    assert scorer.packed(torch.bfloat16) is not first
