"""What expressions evaluate to, beside numbers, truth values, words, lists and terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

from pydantic import Field

from ..primitives import Term
from ..primitives.combine import Block, Tied
from ..source import Span
from ..syntax import ast
from .expect import BOOL, INT, LIST, NUMBER, STREAM, WORD, Expect, with_article

BLOCK_PARTS = ("mixer", "ffn", "norm")
"""What a layer hands to its block."""


class Failed(Exception):
    """An expression has no value; what is wrong has been reported."""


class Broken:
    """Stands in a list for an item without a value, so that the others are still looked at."""

    kind: ClassVar[str] = "broken"


BROKEN = Broken()


@dataclass(eq=False, slots=True)
class Env:
    """Names of one scope over those of an outer one.

    The scope of a call knows what it is a call of, and the scope that the call stands in.
    """

    names: dict[str, Thunk | Any]
    outer: Env | None = None
    callee: Closure | None = None
    caller: Env | None = None

    def find(self, name: str) -> Any:
        """The nearest binding of a name, or None."""
        env: Env | None = self
        while env is not None:
            if name in env.names:
                return env.names[name]
            env = env.outer
        return None

    def visible(self) -> set[str]:
        names: set[str] = set()
        env: Env | None = self
        while env is not None:
            names |= env.names.keys()
            env = env.outer
        return names

    def inside(self, closure: Closure) -> bool:
        """Whether this is, or was called from, the scope of a call of `closure`."""
        env: Env | None = self
        while env is not None:
            if env.callee is closure:
                return True
            env = env.caller
        return False


@dataclass(eq=False, slots=True)
class Thunk:
    """An expression in its scope, evaluated when first used, as its use expects.

    label: what a `let` calls the value. argument: whether it is a parameter of a function.
    failed: whether it has no value, which has been reported.
    """

    expr: ast.Expr
    env: Env
    label: str | None = None
    argument: bool = False
    annotation: Expect | None = None
    range: ast.Range | None = None
    results: dict[Expect, Any] = field(default_factory=dict)
    busy: bool = False
    used: bool = False
    failed: bool = False
    span: Span | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Closure:
    """A function of the spec: `let f(...) = ...` or `mixer f(...) = ...`."""

    name: str
    parameters: tuple[ast.Parameter, ...]
    body: ast.Expr
    env: Env
    span: Span


class BlockValue(Block):
    """A block with the values that a call may have given to its further parameters."""

    definition: ast.BlockDef = Field(exclude=True)
    env: Env = Field(exclude=True)
    given: Mapping[str, Thunk] = Field(default_factory=dict, exclude=True)

    @property
    def further(self) -> tuple[ast.Parameter, ...]:
        """The parameters beside the parts of a layer."""
        return tuple(p for p in self.definition.parameters if p.name.id not in BLOCK_PARTS)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass(frozen=True, slots=True)
class Constructors:
    """A provided name not yet called: the terms it may make, by kind."""

    word: str
    by_kind: Mapping[str, type[Term]]


@dataclass(frozen=True, eq=False, slots=True)
class RecurrenceRule:
    """A recurrence of the spec's own equations: `recurrence f { ... }`, made a mixer by a call."""

    definition: ast.RecurrenceDef
    env: Env

    @property
    def name(self) -> str:
        return self.definition.name.id


@dataclass(frozen=True, eq=False, slots=True)
class Stream:
    """A value of a block's dataflow: (B, T, channels), number `index` of its program."""

    index: int

    kind: ClassVar[str] = STREAM


def kind_of(value: Any) -> str:
    """What a value is, for messages and checks."""
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INT
    if isinstance(value, Fraction | float):
        return NUMBER
    if isinstance(value, str):
        return WORD
    if isinstance(value, tuple):
        return LIST
    if isinstance(value, Closure | Constructors | RecurrenceRule):
        return "function"
    if isinstance(value, Tied):
        return kind_of(value.value)
    kind: str = value.kind
    return kind


def described(value: Any) -> str:
    """A value for a message: `a keep`, or a provided name that was not called."""
    if isinstance(value, Constructors):
        return f"`{value.word}`"
    return with_article(kind_of(value))
