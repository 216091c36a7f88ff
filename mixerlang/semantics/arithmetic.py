"""Exact arithmetic with bounds, and the operators on lists, keeps, features and mixers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from ..primitives import Term
from ..primitives.base import Origin
from ..primitives.combine import Chain
from ..primitives.keep import Intersection, Keep, Union
from ..primitives.recurrence import Compose, Feature
from ..source import Span
from .values import described, kind_of

LIST_LIMIT = 10_000
PARTS_LIMIT = 1_000
"""Of one union, intersection or chain. Doubled by `let b = a | a`, they would outgrow memory."""
INTEGER_LIMIT = 2**63
FLOAT_LIMIT = 2**1000


class Rejected(Exception):
    """An operator does not take its operands: (code, message, help)."""

    def __init__(self, code: str, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.help = code, message, help


def is_number(value: Any) -> bool:
    return isinstance(value, int | Fraction) and not isinstance(value, bool)


def bounded(value: int | Fraction) -> int | Fraction:
    """Exact numbers, integers where they are whole, within bounds."""
    exact = Fraction(value)
    if abs(exact.numerator) >= INTEGER_LIMIT and exact.denominator == 1:
        raise Rejected("MX013", "integers stay below 2^63")
    if abs(exact) >= FLOAT_LIMIT or exact.denominator.bit_length() > 4096:
        raise Rejected("MX013", "the exact value of this expression has too many digits")
    return exact.numerator if exact.denominator == 1 else exact


def _divide(left: Fraction, right: Fraction) -> Fraction:
    if right == 0:
        raise Rejected("MX306", "division by zero")
    return left / right


def _floor_divide(left: Fraction, right: Fraction) -> Fraction:
    return Fraction(_divide(left, right).__floor__())


ON_NUMBERS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "//": _floor_divide,
}


def combine(op: str, left: Any, right: Any, span: Span) -> Any:
    """left op right, for values other than streams. Raises Rejected."""
    if is_number(left) and is_number(right) and op in ON_NUMBERS:
        return bounded(ON_NUMBERS[op](Fraction(left), Fraction(right)))
    if isinstance(left, tuple) and isinstance(right, tuple) and op == "+":
        return _limited(len(left) + len(right), lambda: left + right)
    if op == "*" and isinstance(left, tuple) != isinstance(right, tuple):
        items, count = (left, right) if isinstance(left, tuple) else (right, left)
        return _repeat(items, count)
    made = _combine_terms(op, left, right, span)
    if made is None:
        raise Rejected("MX301", f"`{op}` does not join {described(left)} and {described(right)}",
                       _hint(op))
    return made


def _repeat(items: tuple[Any, ...], count: Any) -> Any:
    if not isinstance(count, int) or isinstance(count, bool):
        shown = count if is_number(count) else described(count)
        raise Rejected("MX301", f"a list repeats a whole number of times, not {shown}")
    if count < 0:
        raise Rejected("MX302", f"a list repeats 0 or more times, not {count}")
    return _limited(len(items) * count, lambda: items * count)


def _limited(length: int, make: Callable[[], Any]) -> Any:
    if length > LIST_LIMIT:
        raise Rejected("MX012", f"a list of {length} items; at most {LIST_LIMIT:,} are allowed")
    return make()


def _combine_terms(op: str, left: Any, right: Any, span: Span) -> Term | None:
    origin = Origin(span)
    if op in "|&" and isinstance(left, Keep) and isinstance(right, Keep):
        kind: type[Union | Intersection] = Union if op == "|" else Intersection
        return kind(parts=_joined(kind, left, right), origin=origin)
    if op == ">>" and isinstance(left, Feature) and isinstance(right, Feature):
        return Compose(parts=_joined(Compose, left, right), origin=origin)
    if op == ">>" and kind_of(left) == kind_of(right) == "mixer":
        return Chain(parts=_joined(Chain, left, right), origin=origin)
    return None


def _joined(kind: type[Any], *terms: Any) -> tuple[Any, ...]:
    """The parts of both operands: `a | b | c` is one union."""
    parts = tuple(p for term in terms for p in (term.parts if type(term) is kind else (term,)))
    if len(parts) > PARTS_LIMIT:
        raise Rejected("MX012", f"{len(parts)} parts are joined here; at most {PARTS_LIMIT:,} "
                       "are allowed")
    return parts


def _hint(op: str) -> str | None:
    return {
        "|": "`|` joins keeps",
        "&": "`&` joins keeps",
        ">>": "`>>` chains features, or mixers",
        "*": "`[a, b] * 12` repeats a list",
        "+": "`[a] * 2 + [b]` joins lists",
    }.get(op)
