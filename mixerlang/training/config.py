"""The numbers of a run. Together with the seed they decide every digit of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """How to train. The defaults follow the paper, at the size of a workstation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(1000, ge=1, description="Optimizer steps.")
    batch: int = Field(8, ge=1, le=1_000_000, description="Sequences per step.")
    length: int = Field(256, ge=2, description="Tokens per sequence.")
    lr: float = Field(3e-4, gt=0, description="Peak learning rate.")
    warmup: int | None = Field(
        None, ge=0, description="Steps of linear warmup; by default a tenth, at most 512."
    )
    lr_floor: float = Field(0.1, ge=0, le=1, description="Where the cosine ends, as a part of lr.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decay of matrices.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the batches and of dropout.")
    eval_every: int = Field(100, ge=1, description="Steps between evaluations.")
    eval_batches: int = Field(
        8, ge=1, le=1_000_000, description="Batches of the fixed validation set."
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    sparsity_every: int | None = Field(
        None,
        ge=1,
        description="Steps between updates of the price of a kept token (LTE); by default 32 or, "
        "in a short run, as few as let it rise to 1 within a fifth of it.",
    )
    max_seconds: float | None = Field(
        None, gt=0, description="Pause after so long; `resume` goes on to the same digits."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: compute under autocast, the weights stay as they are."
    )

    @property
    def warmup_steps(self) -> int:
        return min(512, self.steps // 10) if self.warmup is None else self.warmup

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.length


FREE_ON_RESUME = frozenset({"checkpoint_every", "max_seconds"})
"""What a resumed run may change: it decides where a run pauses, not what it computes."""
