"""Generation: prompts of any lengths go in packed, then one token a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from .mixer import Cache

if TYPE_CHECKING:
    from .model import Model

Prompts = Tensor | Sequence[Tensor | Sequence[int]]
"""Token ids: (B, T), or a list of prompts of any lengths."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits. temperature 0: the likeliest. top_k: among the k likeliest.
    top_p: among the fewest whose probabilities reach p. Both: top_k first."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, vocab) -> (N,) token ids."""
        if self.temperature == 0:
            return logits.argmax(-1)
        probabilities = self.probabilities(logits)
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, vocab) -> what a temperature above 0 draws from, in float32."""
        # From the largest down and in double precision, so that no temperature is too low.
        below = (logits - logits.amax(-1, keepdim=True)).double()
        logits = (below / self.temperature).float()
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            kept = logits.topk(self.top_k).indices
            logits = torch.full_like(logits, -torch.inf).scatter(-1, kept, logits.gather(-1, kept))
        probabilities = logits.softmax(-1)
        if self.top_p is None or self.top_p == 1:
            return probabilities
        ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # of all likelier ones: 0 for the likeliest
        ordered = ordered.masked_fill(before >= self.top_p, 0)
        kept_mass = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        return kept_mass / kept_mass.sum(-1, keepdim=True)


class Generation:
    """What a model inherits to generate."""

    def generate(
        self,
        prompts: Prompts,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos: int | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        prefill_chunk: int | None = None,
        stream: Callable[[list[int | None]], None] | None = None,
    ) -> list[list[int]]:
        """The new tokens of each prompt, up to and with `eos` where it is drawn.

        Greedy at temperature 0, else drawn, in the same way again for the same `seed`. The model
        generates in eval mode and is in its own mode again afterwards. `prefill_chunk` bounds how
        many tokens of a prompt go in at once. `stream` is called with the tokens of each step.
        """
        new: list[list[int]] = []
        for step in self.stream(
            prompts,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            eos=eos,
            seed=seed,
            generator=generator,
            prefill_chunk=prefill_chunk,
        ):
            new = new or [[] for _ in step]
            for tokens, token in zip(new, step, strict=True):
                if token is not None:
                    tokens.append(token)
            if stream is not None:
                stream(step)
        return new

    def stream(
        self,
        prompts: Prompts,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos: int | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        prefill_chunk: int | None = None,
    ) -> Iterator[list[int | None]]:
        """As `generate`, a step at a time: one token per prompt, None where one has ended."""
        model = cast("Model", self)
        for name, value in (("max_new_tokens", max_new_tokens), ("prefill_chunk", prefill_chunk)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        generator = _generator(seed, generator, model.embedding.weight.device)
        draw = Sampling(temperature, top_k, top_p, generator)
        checked = _checked_prompts(prompts, model.embedding.weight.device)
        return _steps(model, checked, max_new_tokens, draw, eos, prefill_chunk)


def _steps(
    model: Model,
    prompts: list[Tensor],
    max_new_tokens: int,
    draw: Sampling,
    eos: int | None,
    chunk: int | None,
) -> Iterator[list[int | None]]:
    running = [True] * len(prompts)
    longest = max(len(prompt) for prompt in prompts)
    with evaluating(model):
        cache = model.new_cache(len(prompts), max_length=longest + max_new_tokens)
        logits = prefill(model, prompts, cache, chunk)
    for left in reversed(range(max_new_tokens)):
        tokens = draw(logits)
        step = [t if on else None for t, on in zip(tokens.tolist(), running, strict=True)]
        running = [on and token != eos for on, token in zip(running, step, strict=True)]
        yield step
        if not left or not any(running):
            return
        # Grad and eval modes are the caller's between steps, so they are entered anew in each.
        with evaluating(model):
            logits = _logits(model(tokens[:, None], cache=cache, last_only=True))


def prefill(
    model: Model, prompts: list[Tensor], cache: Cache, chunk: int | None = None
) -> Tensor:
    """Show the prompts to an empty cache; the logits (N, vocab) after each."""
    longest = max(len(prompt) for prompt in prompts)
    if chunk is None or longest <= chunk:
        return _packed(model, prompts, cache)
    logits = cache.seen.new_empty(0)
    for start in range(0, longest, chunk):
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) > start]
        index = torch.tensor(rows, device=cache.seen.device)
        part = take_rows(cache, index)
        new = _packed(model, [prompts[row][start : start + chunk] for row in rows], part)
        put_rows(cache, part, index)
        logits = new if start == 0 else logits.index_copy(0, index, new)
    return logits


def take_rows(cache: Cache, rows: Tensor) -> Cache:
    """A cache of some rows of another."""
    states = {
        path: {name: tensor[rows] for name, tensor in state.items()}
        for path, state in cache.states.items()
    }
    return Cache(states, cache.seen[rows], cache.max_length, cache.model)


def put_rows(cache: Cache, part: Cache, rows: Tensor) -> None:
    """Give rows taken from a cache back to it."""
    cache.seen = cache.seen.index_copy(0, rows, part.seen)
    for path, state in part.states.items():
        whole = cache.states[path]
        cache.states[path] = {
            name: whole[name].index_copy(0, rows, tensor) for name, tensor in state.items()
        }


def _packed(model: Model, prompts: list[Tensor], cache: Cache) -> Tensor:
    lengths = [len(prompt) for prompt in prompts]
    if len(set(lengths)) == 1:
        return _logits(model(torch.stack(prompts), cache=cache, last_only=True))
    ends = torch.tensor([0, *lengths], device=cache.seen.device).cumsum(0)
    tokens = torch.cat(prompts)[None]
    return _logits(model(tokens, cu_seqlens=ends, cache=cache, last_only=True))


def _logits(output: Tensor) -> Tensor:
    """(N, 1, vocab) -> (N, vocab)."""
    return output[:, -1]


def _generator(
    seed: int | None, generator: torch.Generator | None, device: torch.device
) -> torch.Generator | None:
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError("give a seed or a generator, not both")
    return torch.Generator(device).manual_seed(seed)


def _checked_prompts(prompts: Prompts, device: torch.device) -> list[Tensor]:
    found = [torch.as_tensor(prompt, device=device) for prompt in prompts]
    if not found:
        raise ValueError("there is no prompt")
    for number, prompt in enumerate(found):
        if prompt.dim() != 1:
            raise ValueError(
                f"prompt {number} must be a list of token ids, not of shape {tuple(prompt.shape)}"
            )
        if len(prompt) == 0:
            raise ValueError(f"prompt {number} is empty: a model continues at least one token")
        if prompt.dtype != torch.int64:
            raise ValueError(f"prompt {number} must hold int64 token ids, not {prompt.dtype}")
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module is in its own mode again afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


__all__ = ["Generation", "Prompts", "Sampling", "evaluating", "prefill"]
