"""The tokens that attention still holds: keys, values and positions, compacted as they are dropped.

Shapes: N sequences, G KV heads, S slots; P is G where heads hold different tokens, else 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .mixer import State


@dataclass(frozen=True)
class Tokens:
    """k: (N, G, S, D); v: (N, G, S, E); positions: (N, P, S) int64, -1 in an empty slot.

    scores: what branches know of each token, by branch, (N, P, S) each. Filled slots come in order
    of position.
    """

    k: Tensor
    v: Tensor
    positions: Tensor
    scores: dict[str, Tensor]

    @classmethod
    def empty(cls, k: Tensor, v: Tensor, slots: int, spread: int, scores: list[str]) -> Tokens:
        """`slots` empty slots for tokens like k (N, G, _, D) and v (N, G, _, E), P = `spread`."""
        batch, heads = k.shape[:2]
        positions = torch.full((batch, spread, slots), -1, dtype=torch.int64, device=k.device)
        score = k.new_zeros(batch, spread, slots, dtype=torch.promote_types(k.dtype, torch.float32))
        return cls(
            k.new_zeros(batch, heads, slots, k.shape[-1]),
            v.new_zeros(batch, heads, slots, v.shape[-1]),
            positions,
            {name: score.clone() for name in scores},
        )

    @property
    def slots(self) -> int:
        return self.positions.shape[-1]

    @property
    def filled(self) -> Tensor:
        """(N, P, S) bool."""
        return self.positions >= 0

    def first(self, slots: int) -> Tokens:
        """The first `slots` slots."""
        return Tokens(
            self.k[:, :, :slots],
            self.v[:, :, :slots],
            self.positions[..., :slots],
            {name: score[..., :slots] for name, score in self.scores.items()},
        )

    def append(self, new: Tokens) -> Tokens:
        """These slots, then those of `new`, in whose dtype they go on."""
        if self.slots == 0:
            return new
        scores = {name: torch.cat([old, new.scores[name]], -1) for name, old in self.scores.items()}
        return Tokens(
            torch.cat([self.k.to(new.k.dtype), new.k], dim=2),
            torch.cat([self.v.to(new.v.dtype), new.v], dim=2),
            torch.cat([self.positions, new.positions], dim=-1),
            scores,
        )

    def take(self, index: Tensor) -> Tokens:
        """The tokens in slots index (N, P, X); an empty slot where index is -1."""
        if not self.slots:
            return Tokens.empty(self.k, self.v, index.shape[-1], index.shape[1], list(self.scores))
        slot = index.clamp(min=0)
        scores = {name: score.gather(-1, slot) for name, score in self.scores.items()}
        positions = self.positions.gather(-1, slot).masked_fill(index < 0, -1)
        return Tokens(take_rows(self.k, slot), take_rows(self.v, slot), positions, scores)

    def keep(self, retained: Tensor, slots: int | None = None) -> Tokens:
        """The tokens of retained (N, P, S) bool, compacted into `slots` (None: as few as do)."""
        if slots is None:
            slots = int(retained.sum(-1).max())
        columns = (retained.cumsum(-1) - 1).masked_fill(~retained, -1)
        return self.take(inverse(columns, slots))

    def with_score(self, name: str, score: Tensor) -> Tokens:
        return replace(self, scores=self.scores | {name: score})

    def locate(self, start: Tensor, span: int) -> Tensor:
        """Slots of the positions start (N,), start + 1, ...: (N, P, span), -1 if none."""
        columns = self.positions - start[:, None, None]
        return inverse(columns.masked_fill(~self.filled, -1), span)

    def state(self, dtype: torch.dtype) -> State:
        """As tensors of a cache, keys and values in `dtype`."""
        tensors = {"k": self.k.to(dtype), "v": self.v.to(dtype), "positions": self.positions}
        return tensors | nest("scores", self.scores)

    @classmethod
    def of(cls, state: State) -> Tokens:
        return cls(state["k"], state["v"], state["positions"], scoped("scores", state))


def inverse(columns: Tensor, size: int) -> Tensor:
    """Which entry goes to each column: (..., X) columns to (..., size) entries, -1 if none does.

    Columns outside 0..size-1 are dropped; the others are distinct.
    """
    entries = torch.arange(columns.shape[-1], device=columns.device).expand_as(columns)
    target = torch.where((columns >= 0) & (columns < size), columns, size)
    found = columns.new_full((*columns.shape[:-1], size + 1), -1)
    return found.scatter_(-1, target, entries)[..., :size]


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """x (N, G, S, D) at slots index (N, P, X): (N, G, X, D)."""
    index = index.expand(-1, x.shape[1], -1).unsqueeze(-1)
    return x.gather(2, index.expand(-1, -1, -1, x.shape[-1]))


def scoped(name: str, state: State) -> State:
    """The tensors under `name.`, without that prefix."""
    prefix = f"{name}."
    return {key[len(prefix) :]: x for key, x in state.items() if key.startswith(prefix)}


def nest(name: str, state: State) -> State:
    """The same tensors under `name.`."""
    return {f"{name}.{key}": x for key, x in state.items()}
