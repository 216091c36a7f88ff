"""How a step turns scores into weights."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rule(NamedTuple):
    """softmax(cap(q . k * scale) + bias): cap(s) = softcap * tanh(s / softcap); sink_logits (H,),
    a logit that joins each softmax and carries no value; slopes (H,), of ALiBi."""

    scale: float
    softcap: float | None = None
    sink_logits: Tensor | None = None
    slopes: Tensor | None = None
