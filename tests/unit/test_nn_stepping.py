"""When a kept graph of a step serves again, and what it reads outlives."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mixerlang.nn import stepping
from mixerlang.nn.generation import Generation
from mixerlang.nn.keeps import Cnn
from mixerlang.nn.mixer import Cache
from mixerlang.nn.scorer import CnnScorer
from mixerlang.nn.stepping import GraphStep, Step
from mixerlang.nn.weights import Watch


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


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "written": lambda model: model.get_parameter("0.weight").mul_(2),
    "loaded": lambda model: model.load_state_dict(copy.deepcopy(model.state_dict())),
    "elsewhere": lambda model: model.double(),
    "another tensor": lambda model: setattr(model[0], "bias", nn.Parameter(torch.zeros(3))),
    "assigned": lambda model: model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True),
    "another module": lambda model: model.__setitem__(1, nn.Linear(3, 3)),
    "a buffer": lambda model: model.get_buffer("2.running_mean").add_(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    watch = Watch(model)
    model.eval()(torch.ones(2, 3))
    assert watch.holds()
    with torch.no_grad():
        CHANGES[change](model)
    assert not watch.holds()
    assert Watch(model).holds()


class Recorded(GraphStep):
    """Notes what a call does, in place of a GPU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, new_cache())  # type: ignore[arg-type]
        self.done: list[str] = []

    def _captured(self, model: nn.Module, tokens: Tensor) -> object:  # type: ignore[override]
        self.done.append("capture")
        return object()

    def _replayed(self, tokens: Tensor) -> Tensor:
        self.done.append("replay")
        return tokens


def test_a_graph_is_made_anew_where_weights_change_between_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Linear(3, 3)
    step, tokens = Recorded(model), torch.zeros(2)
    monkeypatch.setattr(Step, "run", lambda self, *_: self.done.append("as it comes"))
    for _ in range(3):
        step(tokens)
    assert step.done == ["as it comes", "capture", "replay", "replay"]
    step.done.clear()
    model.double()
    for _ in range(3):
        step(tokens)
    assert step.done == ["as it comes", "capture", "replay", "replay"]
    assert step.fits(model, new_cache())  # type: ignore[arg-type]


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


def test_training_lets_go_of_the_graph_and_its_cache() -> None:
    model = Trained()
    for mode, kept in ((False, True), (True, False)):
        stepping._kept[model] = GraphStep(model, new_cache())  # type: ignore[arg-type]
        assert model.train(mode) is model
        assert (model in stepping._kept) is kept
        assert model.training is mode


class Trained(Generation):
    """With a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
