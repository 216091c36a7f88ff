"""What every model is: checks and bookkeeping around the forward that its own file spells out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn

from . import weights
from .generation import Generation
from .init import MAPS, Init
from .mixer import Aux, Cache, Context, Mixer
from .sequences import Sequences

Output = Tensor | tuple[Tensor, Aux]
"""Logits, or with return_aux=True also what the mixers report."""


class Layer(nn.Module):
    """One layer: forward(x, context) with x (B, T, dim) -> same; with x0 where layers read it."""


class Model(Generation):
    """A language model. Subclasses build `embedding` and `layers` and spell out `forward`."""

    embedding: nn.Embedding
    layers: nn.ModuleList

    def __init__(self, *, vocab: int, dim: int, context: int, init: Init) -> None:
        super().__init__()
        self.vocab = vocab
        self.dim = dim
        self.context = context
        self.init = init

    # ------------------------------------------------------------------------------- weights

    def reset_parameters(self) -> None:
        """Start afresh, as after construction (and after `to_empty`, from the meta device)."""
        for module in reversed(list(self.modules())):  # parts first: the whole has the last word
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and module is not self and not isinstance(module, MAPS):
                reset()
        self.init(self, len(self.layers))

    def num_parameters(self) -> int:
        """Trainable parameters, tied ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights as safetensors, whole or not at all."""
        weights.save(self, path)

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Read weights that `save` wrote, all of them or none."""
        weights.load(self, path)
        return self

    # --------------------------------------------------------------------------------- cache

    def mixers(self) -> Iterator[tuple[str, Mixer]]:
        """Every mixer by its path, a shared one once for each place that it stands in."""
        for path, module in self.named_modules(remove_duplicate=False):
            if isinstance(module, Mixer):
                yield path, module

    def new_cache(
        self, batch: int, max_length: int | None = None, dtype: torch.dtype | None = None
    ) -> Cache:
        """An empty cache for `batch` sequences of up to `max_length` tokens (None: unbounded)."""
        for name, value in (("batch", batch), ("max_length", max_length)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        weight = self.embedding.weight
        dtype, device = dtype or weight.dtype, weight.device
        states = {
            path: mixer.new_state(batch, max_length, dtype, device) for path, mixer in self.mixers()
        }
        seen = torch.zeros(batch, dtype=torch.int64, device=device)
        return Cache(states, seen, max_length, type(self))

    # ------------------------------------------------------------- around a subclass's forward

    def begin(
        self, tokens: Tensor, cu_seqlens: Tensor | None, cache: Cache | None, return_aux: bool
    ) -> Context:
        """Check a call and say where its tokens stand."""
        _check_tokens(tokens, self.vocab)
        sequences = Sequences.of(tokens, cu_seqlens, None if cache is None else cache.seen)
        if cache is not None:
            if cache.model is not type(self):
                raise ValueError("the cache is of another model; make one with new_cache")
            _check_room(cache, sequences)
        return Context(sequences, cache, {} if return_aux else None)

    def last(self, x: Tensor, context: Context) -> Tensor:
        """The last token of each sequence: (N, 1, dim) of (B, T, dim)."""
        ends = context.sequences.cu_seqlens
        return x[:, -1:] if ends is None else x[0, ends[1:] - 1].unsqueeze(1)

    def finish(self, logits: Tensor, context: Context) -> Output:
        """Count the tokens that the cache has now seen; logits, with aux where it was asked for."""
        if context.cache is not None:
            context.cache.advance(context.sequences)
        return logits if context.aux is None else (logits, context.aux)


def _check_tokens(tokens: Tensor, vocab: int) -> None:
    if tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be int64, not {tokens.dtype}")
    if tokens.dim() != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must be (B, T) and not empty, not {tuple(tokens.shape)}")
    # On an accelerator this would wait for it, and the embedding's own check tells of a bad id.
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= vocab:
            raise ValueError(f"token ids must be in 0..{vocab - 1}; the call brings {low}..{high}")


def _check_room(cache: Cache, sequences: Sequences) -> None:
    if cache.max_length is None:
        return
    longest = cache.reaches(sequences)
    if longest > cache.max_length:
        raise ValueError(f"the cache holds {cache.max_length} tokens; this call makes {longest}")


__all__ = ["Aux", "Cache", "Context", "Layer", "Model", "Output"]
