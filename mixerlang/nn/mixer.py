"""What every mixer is, and what a call tells it beside its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .sequences import Sequences

State = dict[str, Tensor]
"""The cache of one mixer: named tensors, dimension 0 the sequence."""


class Cache:
    """What a model remembers of the tokens it has seen, for `batch` sequences. No gradient goes
    back through it.

    seen: (batch,) int64, tokens of each sequence so far; longest: what no sequence exceeds, known
    without a look at the device. states: one per mixer, by its path. model: the class of the model
    that made it, and that alone can use it. revocable: how many of the last tokens may be taken
    back, and final: the mixers that cannot.
    """

    def __init__(
        self,
        states: dict[str, State],
        seen: Tensor,
        max_length: int | None,
        model: type[nn.Module] | None = None,
        longest: int = 0,
    ) -> None:
        self.states = states
        self.seen = seen
        self.max_length = max_length
        self.model = model
        self.longest = longest
        self.revocable = 0
        self.final: set[str] = set()

    @property
    def batch(self) -> int:
        return len(self.seen)

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        return sum(tensor.nbytes for state in self.states.values() for tensor in state.values())

    def reaches(self, sequences: Sequences) -> int:
        """What no sequence exceeds after a call; exact where that is more than there is room."""
        reached = self.longest + sequences.length
        if self.max_length is None or reached <= self.max_length:
            return reached
        return int((self.seen + sequences.counts).max())

    def advance(self, sequences: Sequences) -> None:
        """Count the tokens of a call."""
        self.longest = self.reaches(sequences)
        self.seen = self.seen + sequences.counts
        self.revocable = 0 if sequences.packed else sequences.length

    def rollback(self, tokens: int) -> None:
        """Forget the last `tokens` tokens of the last call, in all sequences.

        For steps of several tokens of which some are then refused (speculative decoding).
        """
        if tokens and self.final:
            path = min(self.final)
            raise ValueError(
                f"{path} cannot forget the tokens of its last call: keep a copy of "
                "the cache from before, or go on in steps of fewer tokens"
            )
        if not 0 <= tokens <= self.revocable:
            raise ValueError(
                f"{tokens} tokens cannot be forgotten: the last call brought {self.revocable}"
            )
        self.seen = self.seen - tokens
        self.longest -= tokens
        self.revocable -= tokens

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was (beam search)."""
        self.seen = self.seen[rows]
        for path, state in self.states.items():
            self.states[path] = {name: tensor[rows] for name, tensor in state.items()}


Aux = dict[str, dict[str, Tensor]]
"""What mixers report of a call (scores, losses), by path and name."""


@dataclass(frozen=True)
class Context:
    """What a call tells each module: where tokens stand, its cache, where to report."""

    sequences: Sequences
    cache: Cache | None = None
    aux: Aux | None = None
    path: str = ""

    def child(self, name: str | int) -> Context:
        """The context of the submodule `name`."""
        path = f"{self.path}.{name}" if self.path else str(name)
        return Context(self.sequences, self.cache, self.aux, path)

    @property
    def state(self) -> State | None:
        """The state that the last call left here; None without a cache."""
        return None if self.cache is None else self.cache.states[self.path]

    def store(self, state: State, *, revocable: bool = False) -> None:
        """Leave a new state for the next call, without the graph of this one: a cache would hold
        those of all calls so far. Only called with a cache.

        revocable: whether a smaller count of tokens seen is all it takes to forget the last ones.
        """
        assert self.cache is not None
        (self.cache.final.discard if revocable else self.cache.final.add)(self.path)
        self.cache.states[self.path] = {name: tensor.detach() for name, tensor in state.items()}

    def report(self, **values: Tensor) -> None:
        """Tell the caller who asked for it (return_aux=True)."""
        if self.aux is not None:
            self.aux.setdefault(self.path, {}).update(values)


class Mixer(nn.Module):
    """A module that mixes tokens over time: forward(x, context) with x (B, T, dim) -> same."""

    def new_state(
        self, batch: int, max_length: int | None, dtype: torch.dtype, device: torch.device
    ) -> State:
        """An empty cache for `batch` sequences of up to `max_length` tokens (None: unbounded)."""
        raise TypeError(f"{type(self).__name__} has no cache")

    def capture_problem(self, state: State) -> str | None:
        """Why a step from this state cannot be captured in a CUDA graph, if so: its work must not
        depend on what only the host knows, nor wait for the device."""
        return None

    def forward(self, x: Tensor, context: Context) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no forward")


__all__ = ["Aux", "Cache", "Context", "Mixer", "Sequences", "State"]
