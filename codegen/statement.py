"""The forward of a layer as straight-line statements with readable names.

Steps are in static single assignment; a name is used again once the value that it held is dead,
so that the residual stream stays `x` from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ir.graph import TensorType
from ..primitives import pointwise as p
from ..primitives.attention import Attention
from ..primitives.base import Op
from ..primitives.ffn import Mlp, SwiGLU
from .expression import Call, Expression, Items
from .shape import X0, LayerShape, Step, X

TAKE_A_RESIDUAL = (Attention, SwiGLU, Mlp)
"""Ops whose modules add their result to a residual that they are given."""

FUNCTIONS = {
    "silu": "F.silu({})",
    "gelu": "F.gelu({})",
    "relu": "F.relu({})",
    "relu2": "F.relu({}).square()",
    "sigmoid": "torch.sigmoid({})",
    "tanh": "torch.tanh({})",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """`target = expression`, with the type of the result."""

    target: str
    expression: Expression
    type: TensorType


def statements(shape: LayerShape) -> tuple[tuple[Statement, ...], str]:
    """The statements of a layer, and the name that holds its output."""
    names = {X: "x", X0: "x0"}
    last = _last_uses(shape)
    found: list[Statement] = []
    for place, step in enumerate(shape.steps):
        expression = _expression(step, [names[value] for value in step.inputs])
        if (residual := _residual(shape, place, last)) is not None:
            expression = _on_top_of(names[residual], found.pop().expression)
        live = {names[value] for value in names if value == X0 or last.get(value, -1) > place}
        target = _free(_stem(step, names, live), live)
        names[place + 2] = target
        found.append(Statement(target, expression, step.type))
    return tuple(found), names[shape.output]


def written(op: Op) -> bool:
    """Whether an op is written out as an operator or a function instead of a module."""
    return type(op) in _WRITTEN


def _last_uses(shape: LayerShape) -> dict[int, int]:
    """The place of the last step that reads each value; past the end for the output."""
    last = {value: place for place, step in enumerate(shape.steps) for value in step.inputs}
    return last | {shape.output: len(shape.steps)}


def _residual(shape: LayerShape, place: int, last: dict[int, int]) -> int | None:
    """The value that the step before, whose result nobody else reads, can add its result to
    itself, where this step is that sum: on a GPU a step of decoding then has a launch less."""
    step, before = shape.steps[place], place + 1
    if place == 0 or not isinstance(step.op, p.Add) or len(step.inputs) != 2:
        return None
    if before not in step.inputs or last[before] != place:
        return None
    if not isinstance(shape.steps[place - 1].op, TAKE_A_RESIDUAL):
        return None
    return next((value for value in step.inputs if value != before), None)


def _on_top_of(residual: str, call: Expression) -> Expression:
    assert isinstance(call, Call)
    return Call(call.name, (*call.arguments, ("residual", residual)))


def _stem(step: Step, names: dict[int, str], live: set[str]) -> str:
    """`x` for what the residual stream becomes, `h` for what is on its way to it."""
    inputs = [names[value] for value in step.inputs]
    streams = [name for name in inputs if name[0] == "x" and name != "x0"]
    grows = isinstance(step.op, p.Add) or len(set(inputs)) == 1
    return "x" if streams and grows and not live.intersection(streams) else "h"


def _free(stem: str, live: set[str]) -> str:
    name, number = stem, 0
    while name in live:
        number += 1
        name = f"{stem}{number}"
    return name


def _expression(step: Step, inputs: list[str]) -> Expression:
    write = _WRITTEN.get(type(step.op))
    if write is not None:
        return write(step.op, inputs)
    arguments = [*inputs, f'context.child("{step.name}")'] if _mixes(step.op) else inputs
    return Call(f"self.{step.name}", tuple(("", argument) for argument in arguments))


def _mixes(op: Op) -> bool:
    return op.kind == "mixer"


def _add(op: Op, inputs: list[str]) -> Expression:
    return " + ".join(inputs)


def _multiply(op: Op, inputs: list[str]) -> Expression:
    return " * ".join(inputs)


def _scale_by(op: Op, inputs: list[str]) -> Expression:
    assert isinstance(op, p.ScaleBy)
    return f"{op.factor!r} * {inputs[0]}"


def _concat(op: Op, inputs: list[str]) -> Expression:
    return Call("torch.cat", (("", Items(tuple(inputs))), ("dim", "-1")))


def _activation(op: Op, inputs: list[str]) -> Expression:
    assert isinstance(op, p.Activation)
    return FUNCTIONS[op.function].format(inputs[0])


_WRITTEN: dict[type[Op], Callable[[Op, list[str]], Expression]] = {
    p.Add: _add,
    p.Multiply: _multiply,
    p.ScaleBy: _scale_by,
    p.Concat: _concat,
    p.Activation: _activation,
}
"""The operators of a block: they have neither weights nor a mode, and Python has signs for them."""
