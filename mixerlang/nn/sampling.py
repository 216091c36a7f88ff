"""How a token is drawn from logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        # As torch.multinomial, which on a GPU waits to look at the probabilities first.
        waits = torch.empty_like(probabilities).exponential_(1, generator=self.generator)
        return (probabilities / waits).argmax(-1)

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
