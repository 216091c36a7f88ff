"""The equations of a recurrence, one token at a time.

They are written as in a spec, which is Python's own syntax: `S = S + b * outer(k, v - S.T @ k)`.
Only what a spec can say is understood, and nothing is ever run as code. Values are tensors
(N, heads, *axes) with named axes, `key` and `value`: `*` and `/` match axes by name, so that
`a * S` decays the rows of S (key, value) by a (key).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .activation import ACTIVATIONS

Axes = tuple[str, ...]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {**ACTIVATIONS, "exp": torch.exp}
"""Element-wise functions."""


@dataclass(frozen=True)
class Value:
    """A tensor (N, heads, *axes), or a number without axes."""

    tensor: Tensor
    axes: Axes = ()

    def along(self, axes: Axes) -> Tensor:
        """The tensor with one dimension for each of `axes`, those it lacks of size 1."""
        if self.axes == axes or self.tensor.dim() == 0:  # as it stands, or a number
            return self.tensor
        sizes = iter(self.tensor.shape[2:])
        shape = [next(sizes) if axis in self.axes else 1 for axis in axes]
        return self.tensor.reshape(*self.tensor.shape[:2], *shape)


Values = Mapping[str, Value]
Term = Callable[[Values], Value]


class Equations:
    """`name = expression`, in order."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        self.lines = [_line(text) for text in lines]

    def __call__(self, values: Values) -> dict[str, Value]:
        """All names after the last line."""
        known = dict(values)
        for name, term in self.lines:
            known[name] = term(known)
        return known


def _line(text: str) -> tuple[str, Term]:
    match ast.parse(text).body:
        case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
            return name, _term(value)
    raise ValueError(f"{text!r} is no equation")


def _term(node: ast.expr) -> Term:
    match node:
        case ast.Name(id=name):
            return lambda values: values[name]
        case ast.Constant(value=int() | float() as number):
            constant = Value(torch.tensor(number, dtype=torch.float64))
            return lambda values: constant
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _applied(_negate, operand)
        case ast.Attribute(value=ast.Name(id="I"), attr=axis):
            return lambda values: values[f"I.{axis}"]
        case ast.Attribute(value=matrix, attr="T"):
            return _applied(_transpose, matrix)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _applied(OPERATORS[type(op)], left, right)
        case ast.Call(func=ast.Name(id=name), args=args) if name in CALLS:
            return _applied(CALLS[name], *args)
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in FUNCTIONS:
            return _applied(_elementwise(FUNCTIONS[name]), argument)
    raise ValueError(f"{ast.unparse(node)!r} has no meaning in an equation")


def _applied(function: Callable[..., Value], *arguments: ast.expr) -> Term:
    terms = [_term(argument) for argument in arguments]
    return lambda values: function(*(term(values) for term in terms))


# ------------------------------------------------------------------------------------- operators


def _together(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Value, Value], Value]:
    """Element by element, axes matched by name; one side has all the axes of the other."""

    def apply(x: Value, y: Value) -> Value:
        axes = max(x.axes, y.axes, key=len)
        return Value(function(x.along(axes), y.along(axes)), axes)

    return apply


def _elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Value], Value]:
    return lambda x: Value(function(x.tensor), x.axes)


def _negate(x: Value) -> Value:
    return Value(-x.tensor, x.axes)


def _transpose(x: Value) -> Value:
    return Value(x.tensor.transpose(-1, -2), x.axes[::-1])


def _contract(x: Value, y: Value) -> Value:
    """The last axis of x with the first of y."""
    left = x.tensor if len(x.axes) == 2 else x.tensor[..., None, :]
    right = y.tensor if len(y.axes) == 2 else y.tensor[..., None]
    product = left @ right
    if len(y.axes) == 1:
        product = product[..., 0]
    if len(x.axes) == 1:
        product = product[..., 0] if len(y.axes) == 1 else product[..., 0, :]
    return Value(product, x.axes[:-1] + y.axes[1:])


def _outer(x: Value, y: Value) -> Value:
    return Value(x.tensor[..., None] * y.tensor[..., None, :], x.axes + y.axes)


def _diag(x: Value) -> Value:
    return Value(torch.diag_embed(x.tensor), x.axes * 2)


OPERATORS: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: _together(torch.add),
    ast.Sub: _together(torch.sub),
    ast.Mult: _together(torch.mul),
    ast.Div: _together(torch.div),
    ast.MatMult: _contract,
}
CALLS: dict[str, Callable[..., Value]] = {"outer": _outer, "diag": _diag}
