"""The price of a kept token: drives each head of learned eviction (LTE) towards its budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mixer import Aux


def budgets(model: nn.Module) -> dict[str, int]:
    """The budget of each learned eviction by its path, a tied one by each name.

    By what modules have, not by class: every compiled folder brings classes of its own.
    """
    modules = model.named_modules(remove_duplicate=False)
    learned = ((path, getattr(module, "learned", None)) for path, module in modules)
    return {path: keep.budget for path, keep in learned if keep is not None}


@dataclass(frozen=True)
class Schedule:
    """How prices move. A run much shorter than the paper's needs a larger start or growth, or a
    smaller `every`: from 1e-9, growing 1.5 times every 32 steps, a price of 1 takes 1,650 steps.

    every: steps between changes. grow: factor where more than the budget is kept. shrink: divisor
    where less than `low` of it is. memory: steps that the average of kept tokens remembers.
    start: the smallest price but 0; largest: the largest.
    """

    every: int = 32
    grow: float = 1.5
    shrink: float = 2.0
    low: float = 0.95
    memory: int = 16
    start: float = 1e-9
    largest: float = 1.0


def kept_tokens(score: Tensor, final: Tensor) -> Tensor:
    """(G,): how many final scores of a sequence are above 0, from what a layer reports."""
    return ((score > 0) & final[:, None]).sum(-1).to(torch.float32).mean(0)


class SparsityControl:
    """loss = mean(price[layer, head] * relu(score)) over the final scores of a call's `aux`.

    Prices follow, per layer and head, a moving average of how many scores are above 0 in a
    sequence (sinks are not pinned and the window counts), which starts at its length.
    """

    def __init__(self, budgets: Mapping[str, int], schedule: Schedule | None = None) -> None:
        """budgets: kept tokens per KV head, by the path under which a layer reports."""
        self.budgets = dict(budgets)
        self.schedule = schedule or Schedule()
        self.steps = 0
        self.prices: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}

    @classmethod
    def of(cls, model: nn.Module, schedule: Schedule | None = None) -> SparsityControl:
        """For every layer of a model that learns what to evict."""
        return cls(budgets(model), schedule)

    def loss(self, aux: Aux) -> Tensor:
        """To be added to the model's loss."""
        total, count = torch.zeros(()), torch.zeros(())
        for path, score, final in self._reports(aux):
            price = self._price(path, score)[:, None]
            total = total.to(score.device) + (price * F.relu(score) * final[:, None]).sum()
            count = count.to(score.device) + final.sum() * score.shape[1]
        return total / count.clamp(min=1)

    @torch.no_grad()
    def update(self, aux: Aux) -> None:
        """Once a step: average what was kept, and every few steps move the prices."""
        self.steps += 1
        rate = 2 / (1 + self.schedule.memory)
        for path, score, final in self._reports(aux):
            kept = kept_tokens(score, final)
            average = self.kept.get(path, torch.full_like(kept, score.shape[-1])).to(kept.device)
            self.kept[path] = average + rate * (kept - average)
            if self.steps % self.schedule.every == 0:
                price = self._price(path, score)
                self.prices[path] = self._moved(price, self.kept[path], self.budgets[path])

    def _moved(self, price: Tensor, kept: Tensor, budget: int) -> Tensor:
        schedule = self.schedule
        low = schedule.low * budget
        grown = torch.where(kept > budget, price * schedule.grow, price)
        moved = torch.where(kept < low, price / schedule.shrink, grown)
        moved = moved.clamp(max=schedule.largest).masked_fill(moved < schedule.start, 0)
        return moved.masked_fill((price == 0) & (kept > low), schedule.start)

    def _price(self, path: str, score: Tensor) -> Tensor:
        price = self.prices.get(path)
        if price is None:
            price = torch.zeros(score.shape[1])
        self.prices[path] = price.to(score.device)
        return self.prices[path]

    def _reports(self, aux: Aux) -> list[tuple[str, Tensor, Tensor]]:
        """(path, score (N, G, T), final (N, T)) of the layers under control."""
        return [
            (path, aux[path]["score"], aux[path]["final"]) for path in self.budgets if path in aux
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "prices": dict(self.prices), "kept": dict(self.kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("prices", "kept"):
            unknown = state[name].keys() - self.budgets.keys()
            if unknown:
                raise ValueError(f"the model has no layer {', '.join(sorted(unknown))} to control")
        self.steps = state["steps"]
        self.prices = {path: tensor.clone() for path, tensor in state["prices"].items()}
        self.kept = {path: tensor.clone() for path, tensor in state["kept"].items()}
