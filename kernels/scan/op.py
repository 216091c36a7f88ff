"""The scan as ops that torch can see through, with its gradient.

o, after = scan(equations, operands, states, counts)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import loader, ops
from .launch import backward, forward, kernel
from .rule import Equations
from .source import SEGMENT, Kernel

_known: dict[str, Equations] = {}
"""By the text that ops take in place of equations."""


def scan(
    equations: Equations, operands: list[Tensor], states: list[Tensor], counts: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """o (N, T, A, V), zero where there is no token, and the states after each sequence's last one.

    operands (N, T, A, *axes), states (N, A, *axes), in float32; counts (N,), tokens of each."""
    text = repr(equations)
    _known[text] = equations
    whole = [x.contiguous() for x in (*operands, *states)]
    results: Any = _Scan.apply(text, len(operands), counts, *whole)  # type: ignore[no-untyped-call]
    return results[0], list(results[1:])


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, text: str, count: int, counts: Tensor, *tensors: Tensor) -> Any:
        operands, states = list(tensors[:count]), list(tensors[count:])
        keep = any(context.needs_input_grad)
        o, *rest = _forward(operands, states, counts, text, keep)
        after, kept = rest[: len(states)], rest[len(states) :]
        context.text, context.count = text, count
        context.save_for_backward(counts, *operands, *kept)
        return (o, *after)

    @staticmethod
    def backward(context: Any, d_o: Tensor, *d_after: Tensor) -> Any:
        counts, *tensors = context.saved_tensors
        operands, kept = tensors[: context.count], tensors[context.count :]
        gradients = [x.contiguous() for x in (d_o, *d_after)]
        found = _backward(operands, kept, counts, gradients, context.text)
        return (None, None, None, *found)


def _made(text: str, operands: list[Tensor], states: list[Tensor]) -> Kernel:
    return _kernel(text, [x.shape for x in operands], [x.shape for x in states])


def _kernel(text: str, operands: list[Any], states: list[Any]) -> Kernel:
    """By shapes."""
    sizes = _sizes(text, operands, states)
    return kernel(_known[text], operands[0][2], sizes["key"], sizes["value"])


def _sizes(text: str, operands: list[Any], states: list[Any]) -> dict[str, int]:
    """Of the axes, by shapes; 1 of what nothing has."""
    equations = _known[text]
    sizes = {"key": 1, "value": 1}
    named = (*equations.operands, *equations.states)
    for (_, axes), shape in zip(named, (*operands, *states), strict=True):
        sizes |= dict(zip(axes, shape[len(shape) - len(axes) :], strict=True))
    return sizes


def _run_forward(
    operands: list[Tensor], states: list[Tensor], counts: Tensor, text: str, keep: bool
) -> list[Tensor]:
    o, after, kept = forward(_made(text, operands, states), operands, states, counts, keep)
    return [o, *after, *kept]


def _fake_forward(
    operands: list[Tensor], states: list[Tensor], counts: Tensor, text: str, keep: bool
) -> list[Tensor]:
    value = _sizes(text, [x.shape for x in operands], [x.shape for x in states])["value"]
    batch, length, heads = operands[0].shape[:3]
    o = operands[0].new_empty(batch, length, heads, value)
    segments = -(-length // SEGMENT) if keep else 0
    kept = [x.new_empty(*x.shape[:2], segments, *x.shape[2:]) for x in states]
    return [o, *(torch.empty_like(x) for x in states), *kept]


def _run_backward(
    operands: list[Tensor], kept: list[Tensor], counts: Tensor, gradients: list[Tensor], text: str
) -> list[Tensor]:
    d_o, *d_after = gradients
    made = _made(text, operands, d_after)
    d_operands, d_before = backward(made, operands, kept, counts, d_o, d_after)
    return [*d_operands, *d_before]


def _fake_backward(
    operands: list[Tensor], kept: list[Tensor], counts: Tensor, gradients: list[Tensor], text: str
) -> list[Tensor]:
    return [torch.empty_like(x) for x in (*operands, *gradients[1:])]


def _sums(made: Kernel, steps: list[int]) -> int:
    """FLOPs of a token of a head: what steps sum over an axis, a multiply-add each."""
    program = made.steps.program
    summed = (program.steps[x].inputs[0] for x in steps if program.steps[x].op.startswith("sum"))
    return sum(2 * made.size(tuple(program.axes(x))) for x in summed)


def _flops(
    operands: list[Any], states: list[Any], counts: Any, text: str, *_: Any, **__: Any
) -> int:
    batch, tokens, heads = operands[0][:3]
    made = _kernel(text, operands, states)
    return int(batch * tokens * heads * _sums(made, made.steps.forward))


def _backward_flops(
    operands: list[Any], kept: list[Any], counts: Any, gradients: Any, text: str, **_: Any
) -> int:
    """The states of each segment again, and then the gradients."""
    batch, tokens, heads = operands[0][:3]
    made = _kernel(text, operands, gradients[1:])
    steps, needed = made.steps, made.steps.program.needed
    again, back = needed(steps.moved.values()), needed(steps.gradients.values())
    return int(batch * tokens * heads * (_sums(made, again) + _sums(made, back)))


_NAMESPACE = loader.namespace(__name__)
_forward = ops.define(
    f"{_NAMESPACE}::scan",
    "(Tensor[] operands, Tensor[] states, Tensor counts, str text, bool keep) -> Tensor[]",
    _run_forward,
    _fake_forward,
    flops=_flops,
)
_backward = ops.define(
    f"{_NAMESPACE}::scan_backward",
    "(Tensor[] operands, Tensor[] kept, Tensor counts, Tensor[] gradients, str text) -> Tensor[]",
    _run_backward,
    _fake_backward,
    flops=_backward_flops,
)
