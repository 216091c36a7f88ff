"""Generation: prompts of any lengths go in packed, then one token a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor, nn

from .mixer import Cache
from .sampling import Sampling
from .stepping import Step, evaluating, fetched, forget, logits_of, room, stepper

if TYPE_CHECKING:
    from .model import Model

Prompts = Tensor | Sequence[Tensor | Sequence[int]]
"""Token ids: (B, T), or a list of prompts of any lengths."""


class Generation(nn.Module):
    """What a model inherits to generate."""

    def train(self, mode: bool = True) -> Self:
        """As ever; training has the memory that the last generation's cache takes."""
        if mode:
            forget(self)
        return super().train(mode)

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
    length = max(len(prompt) for prompt in prompts) + max_new_tokens
    with evaluating(model):
        cache = model.new_cache(len(prompts), max_length=room(model, length))
        logits = prefill(model, prompts, cache, chunk)
    go_on: Step | None = None
    try:
        for left in reversed(range(max_new_tokens)):
            tokens = draw(logits)
            arriving = fetched(tokens)
            # A GPU goes on while the host looks whether that was the last step. The first token is
            # told at once: how to go on from it takes the host a while.
            ahead = left > 0 and go_on is not None and tokens.is_cuda
            if go_on is not None and ahead:
                logits = go_on(tokens)
            step = [t if on else None for t, on in zip(arriving(), running, strict=True)]
            running = [on and token != eos for on, token in zip(running, step, strict=True)]
            yield step
            if not any(running):
                return
            if left and not ahead:
                go_on = go_on or stepper(model, cache, max_new_tokens - 1)
                logits = go_on(tokens)
    finally:
        if go_on is not None:
            go_on.close()


def prefill(model: Model, prompts: list[Tensor], cache: Cache, chunk: int | None = None) -> Tensor:
    """Show the prompts to an empty cache; the logits (N, vocab) after each."""
    longest = max(len(prompt) for prompt in prompts)
    if chunk is None or longest <= chunk:
        return _packed(model, prompts, cache)
    logits = cache.seen.new_empty(0)
    for start in range(0, longest, chunk):
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) > start]
        parts = [prompts[row][start : start + chunk] for row in rows]
        if len(rows) == len(prompts):
            logits = _packed(model, parts, cache)
            continue
        index = torch.tensor(rows, device=cache.seen.device)
        part = take_rows(cache, index)
        logits = logits.index_copy(0, index, _packed(model, parts, part))
        put_rows(cache, part, index)
    return logits


def take_rows(cache: Cache, rows: Tensor) -> Cache:
    """A cache of some rows of another."""
    states = {
        path: {name: tensor[rows] for name, tensor in state.items()}
        for path, state in cache.states.items()
    }
    return Cache(states, cache.seen[rows], cache.max_length, cache.model, cache.longest)


def put_rows(cache: Cache, part: Cache, rows: Tensor) -> None:
    """Give rows taken from a cache back to it."""
    cache.seen = cache.seen.index_copy(0, rows, part.seen)
    cache.longest = max(cache.longest, part.longest)
    for path, state in part.states.items():
        whole = cache.states[path]
        cache.states[path] = {
            name: whole[name].index_copy(0, rows, tensor) for name, tensor in state.items()
        }


def _packed(model: Model, prompts: list[Tensor], cache: Cache) -> Tensor:
    lengths = [len(prompt) for prompt in prompts]
    if len(set(lengths)) == 1:
        return logits_of(model(torch.stack(prompts), cache=cache, last_only=True))
    ends = torch.tensor([0, *lengths]).cumsum(0)  # on the host, which looks at them
    tokens = torch.cat(prompts)[None]
    return logits_of(model(tokens, cu_seqlens=ends, cache=cache, last_only=True))


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


__all__ = ["Generation", "Prompts", "Sampling", "evaluating", "prefill"]
