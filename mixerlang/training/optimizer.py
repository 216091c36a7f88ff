"""torch's AdamW, without the wait for torch.compile.

Methods of torch's optimizers import torch._dynamo, four seconds on a slow machine, only to keep it
from looking into them. Where nobody has imported it, nobody looks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch


def _unwatched(name: str) -> Callable[..., Any]:
    """A method of torch's optimizers, as it is inside where torch._dynamo is not there."""
    method = getattr(torch.optim.Optimizer, name)
    inside = unwrap(method)

    def call(self: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        chosen = method if "torch._dynamo" in sys.modules else inside
        return chosen(self, *arguments, **named)

    return call


class AdamW(torch.optim.AdamW):
    """As torch's own, to the last bit."""

    add_param_group = _unwatched("add_param_group")
    load_state_dict = _unwatched("load_state_dict")
    state_dict = _unwatched("state_dict")
    zero_grad = _unwatched("zero_grad")

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            loss: float | None = _step(self, closure)
        return loss


_step: Callable[..., Any] = unwrap(torch.optim.AdamW.step)
