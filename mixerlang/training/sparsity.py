"""Learned eviction in a run: the pace of its control, and what its heads keep."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor, nn

from ..nn.mixer import Aux
from ..nn.sparsity import Schedule, SparsityControl, budgets
from .config import TrainConfig


def sparsity_control(model: nn.Module, config: TrainConfig) -> SparsityControl | None:
    """For a model that learns what to evict; None for others."""
    found = budgets(model)
    return SparsityControl(found, schedule(config)) if found else None


def schedule(config: TrainConfig) -> Schedule:
    """The paper's, or one for a run too short for its prices to rise from 1e-9 to 1.

    In a short run they start high enough to be felt and rise to 1 within a fifth of it; the average
    of kept tokens forgets as quickly as they move, or they would swing far beyond what is needed.
    """
    paper = Schedule()
    if config.steps >= 5 * _rise(paper) * paper.every:
        return replace(paper, every=config.sparsity_every or paper.every)
    short = replace(paper, start=1e-3)
    every = config.sparsity_every or max(1, config.steps // (5 * _rise(short)))
    every = min(paper.every, every)
    return replace(short, every=every, memory=min(paper.memory, 2 * every))


def _rise(schedule: Schedule) -> int:
    """Updates in which a price rises from its least value to its largest."""
    return math.ceil(math.log(schedule.largest / schedule.start) / math.log(schedule.grow))


def kept_fractions(aux: Aux) -> dict[str, Tensor]:
    """(N, heads): the part of each sequence that scores above 0, by path of the layer.

    As the control counts them: without the tokens whose score still lacks its right neighbours.
    """
    return {
        path: ((values["score"] > 0) & values["final"][:, None]).float().mean(-1)
        for path, values in aux.items()
        if "score" in values
    }


def budget_fractions(model: nn.Module, length: int) -> dict[str, float]:
    """The part of a sequence that the budget of each layer is, by its path."""
    return {path: min(1.0, budget / length) for path, budget in budgets(model).items()}
