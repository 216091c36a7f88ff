"""The optimizer and its learning rate."""

from __future__ import annotations

import math

from torch import nn

from .config import TrainConfig
from .optimizer import AdamW


def learning_rate(step: int, config: TrainConfig) -> float:
    """Of step 0, 1, ...: a linear warmup, then a cosine that ends at `lr_floor * lr`."""
    warmup = config.warmup_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, config.steps - 1 - warmup))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.lr * (config.lr_floor + (1 - config.lr_floor) * cosine)


def adamw(model: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW that decays matrices, and neither norms nor biases nor anything of one dimension."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() >= 2 and not name.endswith("bias")
            (decayed if matrix else free).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (free, 0.0))
        if parameters
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
