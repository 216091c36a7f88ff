"""The fixed validation set, and what each head keeps of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .data import Corpus, spread_blocks
from .errors import DivergenceError, TrainingError
from .events import Evaluated, Kept
from .guards import evaluating
from .sparsity import budget_fractions, kept_fractions
from .state import TrainingState, next_token_loss


@torch.no_grad()
def evaluate(state: TrainingState, corpus: Corpus) -> Evaluated:
    """Validate in eval() mode: no dropout, budgets in force, no random number drawn."""
    config, model = state.config, state.model
    batches = spread_blocks(corpus.valid, config.eval_batches, config.batch, config.length)
    loss, kept = 0.0, list[dict[str, Tensor]]()
    with evaluating(model):
        for blocks in batches:
            part, aux = next_token_loss(
                model, blocks.to(state.device), config, state.control is not None
            )
            loss += part.item() / config.eval_batches
            kept.append(kept_fractions(aux))
    if not math.isfinite(loss):
        raise DivergenceError(f"step {state.step}: the validation loss is {loss}")
    best = state.best is None or loss < state.best[1]
    budgets = budget_fractions(model, config.length)
    return Evaluated(state.step, loss, loss / math.log(2), best, _summary(kept, budgets))


def _summary(batches: list[dict[str, Tensor]], budgets: dict[str, float]) -> dict[str, Kept]:
    """Mean, least and most over sequences of the fractions (B, heads) of each batch."""
    found = {}
    for path in batches[0]:
        fractions = torch.cat([batch[path] for batch in batches])
        rows = fractions.mean(0), fractions.amin(0), fractions.amax(0)
        mean, least, most = (tuple(row.tolist()) for row in rows)
        found[path] = Kept(budgets[path], mean, least, most)
    return found


@torch.no_grad()
def require_bytes(model: nn.Module) -> None:
    """The model must read and predict all 256 bytes."""
    token = torch.zeros((1, 1), dtype=torch.int64, device=next(model.parameters()).device)
    with evaluating(model):
        vocabulary = model(token).shape[-1]
    if vocabulary < 256:
        raise TrainingError(
            f"the text is read as bytes, and the model knows {vocabulary} of their 256 values: "
            "give it vocab = 256"
        )
