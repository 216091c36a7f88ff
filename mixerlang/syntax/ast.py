"""The abstract syntax tree: what a .mix file says, before any name has a meaning.

Every node carries the span of its text. Nodes are frozen and compare by identity-free structure,
spans included.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..source import Span


@dataclass(frozen=True, slots=True)
class Node:
    span: Span


# --- expressions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number(Node):
    """An exact literal; `integer` is false for one written with a point or an exponent.

    `sound` is false for one that was reported, and then the value says nothing.
    """

    value: Fraction
    integer: bool
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Boolean(Node):
    value: bool


@dataclass(frozen=True, slots=True)
class String(Node):
    """The text between the quotes, escapes resolved."""

    value: str


@dataclass(frozen=True, slots=True)
class Name(Node):
    id: str


@dataclass(frozen=True, slots=True)
class ListExpr(Node):
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """`name` is None for a positional argument."""

    name: Name | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`op` is '-'."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`op` is one of + - * / // | & >> and, inside a recurrence rule, @."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    """`S.T`, meaningful inside a recurrence rule alone."""

    value: Expr
    name: Name


Expr = (
    Number | Boolean | String | Name | ListExpr | Call | Unary | Binary | Attribute
)


# --- parts of statements ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range(Node):
    """`low..high`, both ends included."""

    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """Of a function, mixer, block or, as `param`, of a model: `name: type = default in range`."""

    name: Name
    annotation: Name | None
    default: Expr | None
    range: Range | None


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """Python's `start:stop:step`; an absent part is None."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


# --- statements -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Import(Node):
    path: String


@dataclass(frozen=True, slots=True)
class Let(Node):
    """`let name = value`, or `let name(parameters) = value`."""

    name: Name
    parameters: tuple[Parameter, ...] | None
    value: Expr


@dataclass(frozen=True, slots=True)
class MixerDef(Node):
    """`mixer name(parameters) = value`; parameters may be absent."""

    name: Name
    parameters: tuple[Parameter, ...] | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """One line of a block or a recurrence rule; `op` is '=' or '+='."""

    target: Name
    op: str
    value: Expr


@dataclass(frozen=True, slots=True)
class BlockDef(Node):
    """`block name(parameters) { lines }`."""

    name: Name
    parameters: tuple[Parameter, ...]
    body: tuple[Assign, ...]


@dataclass(frozen=True, slots=True)
class State(Node):
    """`state S[key, value]` of a recurrence rule."""

    name: Name
    axes: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Operand(Node):
    """`gate c` or `decay w[value]` of a recurrence rule: what a token brings beside q, k and v.

    `kind` is one of key, value, gate, decay, weight; without axes it is one number per head.
    """

    kind: str
    name: Name
    axes: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class RecurrenceDef(Node):
    """`recurrence name(parameters) { lines }`; parameters may be absent."""

    name: Name
    parameters: tuple[Parameter, ...] | None
    body: tuple[State | Operand | Assign, ...]


@dataclass(frozen=True, slots=True)
class Param(Node):
    """`param name: type = default in low..high` of a model."""

    parameter: Parameter


@dataclass(frozen=True, slots=True)
class Field(Node):
    """`name = value` of a model."""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Override(Node):
    """`layers[0, -1, ::4] = value` of a model."""

    target: Name
    indices: tuple[Expr | Slice, ...]
    value: Expr


ModelItem = Param | Let | Field | Override


@dataclass(frozen=True, slots=True)
class Model(Node):
    name: Name
    items: tuple[ModelItem, ...]


Statement = Import | Let | MixerDef | BlockDef | RecurrenceDef | Model


@dataclass(frozen=True, slots=True)
class File(Node):
    statements: tuple[Statement, ...]
