"""Everything that changes while a model trains, and how one step changes it."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.loss import cross_entropy
from .config import TrainConfig
from .data import Corpus, sample_blocks
from .errors import DivergenceError
from .events import Stepped
from .schedule import adamw, learning_rate
from .sparsity import sparsity_control


class TrainingState:
    """A model with its optimizer, its sparsity weights, the generators and the step it is at."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.model = model
        self.config = config
        self.device = next(model.parameters()).device
        self.optimizer = adamw(model, config)
        self.control = sparsity_control(model, config)
        self.data_generator = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self.best: tuple[int, float] | None = None

    def advance(self, corpus: Corpus) -> Stepped:
        """Take one optimizer step."""
        start = time.perf_counter()
        lr = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        loss, sparsity, gradient_norm = self._gradients(self._batch(corpus))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return Stepped(
            step=self.step,
            loss=loss,
            sparsity_loss=sparsity,
            bits_per_byte=loss / math.log(2),
            lr=lr,
            gradient_norm=gradient_norm,
            tokens_per_second=self.config.tokens_per_step / (time.perf_counter() - start),
            peak_memory=self._peak_memory(),
        )

    def _batch(self, corpus: Corpus) -> Tensor:
        config = self.config
        blocks = sample_blocks(corpus.train, config.batch, config.length, self.data_generator)
        return blocks.to(self.device)

    def _gradients(self, blocks: Tensor) -> tuple[float, float, float]:
        """Loss, sparsity loss and gradient norm; the clipped gradients stay with the weights."""
        loss, aux = next_token_loss(self.model, blocks, self.config, self.control is not None)
        sparsity = loss.new_zeros(()) if self.control is None else self.control.loss(aux)
        (loss + sparsity).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        values = loss.item(), sparsity.item(), norm.item()
        if not all(map(math.isfinite, values)):
            raise DivergenceError(
                "step {}: loss {:.4g}, sparsity loss {:.4g}, gradient norm {:.4g}: not a finite "
                "number, so the weights were left as they were; a lower learning rate or a longer "
                "warmup may help".format(self.step + 1, *values)
            )
        if self.control is not None:
            self.control.update(aux)
        return values

    def _peak_memory(self) -> int | None:
        """Bytes, where the device counts them."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device)

    def state_dict(self) -> dict[str, Any]:
        """All but the weights. Loaded back, the next step is the same to the last digit."""
        cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "control": None if self.control is None else self.control.state_dict(),
            "data_generator": self.data_generator.get_state(),
            "cpu_generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.control is not None:
            self.control.load_state_dict(state["control"])
        self.data_generator.set_state(state["data_generator"])
        torch.set_rng_state(state["cpu_generator"])
        if self.device.type == "cuda" and state["cuda_generator"] is not None:
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)


def next_token_loss(
    model: nn.Module, blocks: Tensor, config: TrainConfig, return_aux: bool
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """Cross-entropy in nats per token of blocks (B, length + 1), and what the mixers report."""
    tokens, targets = blocks[:, :-1], blocks[:, 1:]
    with torch.autocast(blocks.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
        output = model(tokens, return_aux=True) if return_aux else (model(tokens), {})
    logits, aux = output
    return cross_entropy(logits, targets), aux
