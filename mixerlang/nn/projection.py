"""Linear maps, through a bottleneck where a rank is given, and several of one input at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.linear.cut import MOST_WEIGHTS
from .linear import plain, together


def projection(dim: int, out: int, rank: int | None = None, *, bias: bool = False) -> nn.Module:
    """dim -> out, or dim -> rank -> out; a bias only at the end."""
    if rank is None:
        return nn.Linear(dim, out, bias=bias)
    return nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, out, bias=bias))


def projected(
    x: Tensor, modules: Mapping[str, nn.Module], joined: Sequence[str] = ()
) -> dict[str, Tensor]:
    """What each of the modules makes of x (..., dim), by name; those `joined` side by side too,
    under that name.

    With some joined, all plain linear maps are one matmul, or two: those, and the rest. Without,
    as in steps, nothing is stacked; of few rows, several maps are one launch.
    """
    if not joined:
        return _one_by_one(x, modules)
    first = {name: modules[name] for name in joined if name in modules}
    rest = {name: module for name, module in modules.items() if name not in first}
    if _stackable(first):
        whole = _one(x, first)
        found = _parts(whole, [_width(module) for module in first.values()], list(first))
    else:
        found = {name: module(x) for name, module in first.items()}
        whole = torch.cat(list(found.values()), dim=-1)
    found["joined"] = whole
    maps = {name: module for name, module in rest.items() if _stackable({name: module})}
    if maps:
        found |= _parts(_one(x, maps), [_width(m) for m in maps.values()], list(maps))
    return found | {name: module(x) for name, module in rest.items() if name not in maps}


def _one_by_one(x: Tensor, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    maps = [name for name, module in modules.items() if _stackable({name: module})]
    for start in range(0, len(maps), MOST_WEIGHTS):
        names = maps[start : start + MOST_WEIGHTS]
        y = together(x, *(modules[name] for name in names))
        if y is not None:
            found |= _parts(y, [_width(modules[name]) for name in names], names)
    return found | {name: module(x) for name, module in modules.items() if name not in found}


def _stackable(modules: Mapping[str, nn.Module]) -> bool:
    """Whether they are linear maps and no more, without biases and of one dtype."""
    if not all(plain(m) and m.bias is None for m in modules.values()):
        return False
    return len({m.get_parameter("weight").dtype for m in modules.values()}) == 1


def _width(module: nn.Module) -> int:
    assert isinstance(module, nn.Linear)
    return module.out_features


def _parts(x: Tensor, widths: list[int], names: list[str]) -> dict[str, Tensor]:
    return dict(zip(names, torch.split(x, widths, dim=-1), strict=True))


def _one(x: Tensor, modules: Mapping[str, nn.Module]) -> Tensor:
    weights: list[Tensor] = [module.get_parameter("weight") for module in modules.values()]
    if torch.compiler.is_compiling():  # which decides by itself what to keep
        return F.linear(x, torch.cat(weights))
    y: Tensor = _Stacked.apply(x, *weights)  # type: ignore[no-untyped-call]
    return y


class _Stacked(torch.autograd.Function):
    """x with several weights (out, dim) as one. The stack is made again in the backward pass: what
    is kept is what each map by itself would keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        return F.linear(x, torch.cat(weights))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        dx: Tensor | None = None
        dw: Sequence[Tensor | None] = [None] * len(weights)
        if ctx.needs_input_grad[0]:
            dx = (dy @ torch.cat(weights).to(dy.dtype)).to(x.dtype)
        if any(ctx.needs_input_grad[1:]):
            rows = x.flatten(0, -2).to(dy.dtype)
            whole = (dy.flatten(0, -2).mT @ rows).to(weights[0].dtype)
            dw = torch.split(whole, [len(weight) for weight in weights])
        return dx, *dw
