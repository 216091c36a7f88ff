"""One token a step over a cache: on a GPU as one CUDA graph, wherever each mixer can be captured.

A step of a small batch is hundreds of launches of microseconds each; replayed as a graph they cost
the host one. The graph of a model's last generation is kept, with its cache, until the model is
trained or gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from . import backend
from .mixer import Cache
from .weights import Watch

if TYPE_CHECKING:
    from .model import Model

WORTH = 8
"""Steps for which a graph is captured: fewer are over sooner than that."""

ROOM = 256
"""Caches on a GPU are made for multiples of so many tokens, so that a kept graph fits again."""


def room(model: Model, length: int) -> int:
    """For how many tokens to make a cache that is to hold `length`."""
    on_gpu = model.embedding.weight.is_cuda
    return -(-length // ROOM) * ROOM if on_gpu else length


def stepper(model: Model, cache: Cache, steps: int) -> Step:
    """How to go on from a cache, for at most `steps` steps; `close` it afterwards."""
    kept = _kept.pop(model, None)  # whoever uses it has it alone
    if not cache.seen.is_cuda or steps < WORTH:
        return Step(model, cache)
    if kept is not None and kept.fits(model, cache):
        kept.take(model, cache)
        return kept
    reason = capture_problem(model, cache)
    if reason is not None:
        backend.explain(f"steps are not captured in a CUDA graph: {reason}")
        return Step(model, cache)
    return GraphStep(model, cache)


def capture_problem(model: Model, cache: Cache) -> str | None:
    """Why a step cannot be captured, if so."""
    for path, mixer in model.mixers():
        reason = mixer.capture_problem(cache.states[path])
        if reason is not None:
            return f"{path}: {reason}"
    return None


class Step:
    """Steps as they come."""

    def __init__(self, model: Model, cache: Cache) -> None:
        self.model: Model | None = model
        self.cache = cache

    def __call__(self, tokens: Tensor) -> Tensor:
        """The logits (N, vocab) after one more token (N,) of each sequence."""
        assert self.model is not None, "a step that was closed"
        with evaluating(self.model):
            return self.run(self.model, tokens)

    def run(self, model: Model, tokens: Tensor) -> Tensor:
        return logits_of(model(tokens[:, None], cache=self.cache, last_only=True))

    def close(self) -> None:
        """No more steps."""
        self.model = None


class GraphStep(Step):
    """The first step as it comes, which compiles what is to be compiled; then a graph of it.

    A graph reads weights where they were when it was made, and what was made of them: where they
    have changed since, even between two steps, it is made again.
    """

    def __init__(self, model: Model, cache: Cache) -> None:
        super().__init__(model, cache)
        self.weights, self.modes = Watch(model), modes(cache.seen.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps = 0
        self.tokens = self.logits = cache.seen

    def fits(self, model: Model, cache: Cache) -> bool:
        """Whether its graph serves such a cache, and was made with the weights and modes as they
        are."""
        same = shapes(cache) == shapes(self.cache) and modes(cache.seen.device) == self.modes
        return same and self.weights.holds()

    def take(self, model: Model, cache: Cache) -> None:
        """Go on from another cache."""
        self.model = model
        copy_states(self.cache.states, cache.states)
        self.cache.seen.copy_(cache.seen)
        self.cache.longest = cache.longest

    def __call__(self, tokens: Tensor) -> Tensor:
        if self.graph is not None and self.weights.holds():
            return self._replayed(tokens)
        return super().__call__(tokens)

    def run(self, model: Model, tokens: Tensor) -> Tensor:
        if self.graph is not None:  # of other weights
            self.graph, self.steps = None, 0
        if self.steps == 1:
            self.weights, self.graph = Watch(model), self._captured(model, tokens)
        self.steps += 1
        return super().run(model, tokens) if self.graph is None else self._replayed(tokens)

    def _replayed(self, tokens: Tensor) -> Tensor:
        assert self.graph is not None
        self.tokens.copy_(tokens)
        with torch.cuda.device(tokens.device):
            self.graph.replay()
        self.cache.longest += 1
        return self.logits

    def _captured(self, model: Model, tokens: Tensor) -> torch.cuda.CUDAGraph | None:
        """A graph that reads `tokens`, and changes the tensors that the cache has now."""
        cache = self.cache
        states, seen, longest = dict(cache.states), cache.seen, cache.longest
        self.tokens, graph = tokens.clone(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(tokens.device)  # type: ignore[no-untyped-call]
        # Other threads may go on with what a capture forbids.
        capture = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        try:
            with torch.cuda.device(tokens.device), _uncached_autocast(tokens.device), capture:
                self.logits = super().run(model, self.tokens)
                copy_states(states, cache.states)
                seen.copy_(cache.seen)
        except RuntimeError as error:
            backend.explain(f"steps are not captured in a CUDA graph: {error}")
            return None
        finally:
            cache.states, cache.seen, cache.longest = states, seen, longest
        return graph

    def close(self) -> None:
        """Keep the graph for the next time."""
        if self.graph is not None and self.model is not None:
            _kept[self.model] = self
        super().close()


_kept: WeakKeyDictionary[nn.Module, GraphStep] = WeakKeyDictionary()


def forget(model: nn.Module) -> None:
    """Let go of a model's graph, and of the cache that it changes."""
    _kept.pop(model, None)


def modes(device: torch.device) -> tuple[object, ...]:
    """What else a graph keeps to: tensors made in inference mode cannot be changed outside of it,
    and what autocast rounds is part of the graph."""
    kind = device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return torch.is_inference_mode_enabled(), autocast, torch.get_float32_matmul_precision()


def _uncached_autocast(device: torch.device) -> torch.autocast:
    """Autocast as it is, but without its rounded weights: these go when its block ends, and a graph
    that reads them may be replayed after that."""
    kind = device.type
    return torch.autocast(
        kind,
        dtype=torch.get_autocast_dtype(kind),
        enabled=torch.is_autocast_enabled(kind),
        cache_enabled=False,
    )


def shapes(cache: Cache) -> dict[tuple[str, str], tuple[torch.dtype, torch.Size]]:
    return {
        (path, name): (tensor.dtype, tensor.shape)
        for path, state in cache.states.items()
        for name, tensor in state.items()
    }


def copy_states(to: dict[str, dict[str, Tensor]], states: dict[str, dict[str, Tensor]]) -> None:
    """What a state updates in place is there already."""
    for path, state in states.items():
        for name, tensor in state.items():
            if tensor.data_ptr() != to[path][name].data_ptr():
                to[path][name].copy_(tensor)


def fetched(tokens: Tensor) -> Callable[[], list[int]]:
    """What gives tokens (N,) on the host: it waits for them, and not for what comes after them."""
    if not tokens.is_cuda:
        return tokens.tolist
    host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
    host.copy_(tokens, non_blocking=True)
    there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    there.record(torch.cuda.current_stream(tokens.device))

    def wait() -> list[int]:
        there.synchronize()
        found: list[int] = host.tolist()
        return found

    return wait


def logits_of(output: Tensor) -> Tensor:
    """(N, 1, vocab) -> (N, vocab)."""
    return output[:, -1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module is in its own mode again afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:  # past nn.Module.__setattr__, which takes longer than all the rest
        vars(module)["training"] = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            vars(module)["training"] = True
