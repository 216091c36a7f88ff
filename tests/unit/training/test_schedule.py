"""The learning rate of each step, and what the optimizer decays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError
from torch import nn

from mixerlang.training import TrainConfig
from mixerlang.training.schedule import adamw, learning_rate


def rates(config: TrainConfig) -> list[float]:
    return [learning_rate(step, config) for step in range(config.steps)]


def test_warmup_is_linear_and_the_cosine_ends_at_a_tenth() -> None:
    got = rates(TrainConfig(steps=105, warmup=4, lr=1.0))
    assert got[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert got[54] == pytest.approx(0.55)  # halfway down from 1 to 0.1
    assert got[-1] == pytest.approx(0.1)
    assert got[4:] == sorted(got[4:], reverse=True)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (2, 2), (3, 100)])
def test_absurdly_short_runs_have_a_rate(steps: int, warmup: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(TrainConfig(steps=steps, warmup=warmup, lr=1.0)))


def test_warmup_is_a_tenth_of_a_short_run_and_512_in_a_long_one() -> None:
    assert TrainConfig(steps=300).warmup_steps == 30
    assert TrainConfig(steps=100_000).warmup_steps == 512
    assert TrainConfig(steps=300, warmup=0).warmup_steps == 0


def test_matrices_decay_and_norms_and_biases_do_not(make_model: Callable[..., nn.Module]) -> None:
    model = make_model()
    optimizer = adamw(model, TrainConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {
        group["weight_decay"]: sorted(names[id(p)] for p in group["params"])
        for group in optimizer.param_groups
    }
    assert groups == {
        0.3: ["embedding.weight", "gru.weight_hh_l0", "gru.weight_ih_l0", "head.weight"],
        0.0: ["gru.bias_hh_l0", "gru.bias_ih_l0", "head.bias", "norm.bias", "norm.weight"],
    }


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"lr": 0}, {"clip": -1}, {"length": 1}, {"stepps": 5}, {"dtype": "x"}]
)
def test_impossible_configurations_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        TrainConfig(**change)  # type: ignore[arg-type]
