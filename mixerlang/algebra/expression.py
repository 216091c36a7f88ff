"""Polynomials with rational coefficients over atoms: symbols, and functions of polynomials.

An expression is canonical as it is built: a sum of distinct monomials in a fixed order. Two that
are equal as polynomials over their atoms are equal, and hash alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, overload

Rational = int | Fraction
Function = Literal["floor", "ceil", "min", "max", "power"]


@dataclass(frozen=True)
class Symbol:
    """A variable: a whole number of at least 0."""

    name: str

    @property
    def key(self) -> tuple[int, str]:
        return 0, self.name


@dataclass(frozen=True)
class Call:
    """floor(a / b), ceil(a / b), min(a, b), max(a, b); power(a): the least power of 2 >= a."""

    function: Function
    arguments: tuple[Expr, ...]

    @cached_property
    def key(self) -> tuple[int, str]:
        return 1, f"{self.function}{[argument.terms_key for argument in self.arguments]}"


Atom = Symbol | Call
Monomial = tuple[tuple[Atom, int], ...]
"""Atoms with their powers, in the order of their keys; () is 1."""


class Expr:
    """A sum of monomials with coefficients other than 0."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, Rational]) -> None:
        left = {monomial: _plain(c) for monomial, c in terms.items() if c}
        self.terms = dict(sorted(left.items(), key=lambda term: _monomial_key(term[0])))
        self._hash = hash(tuple(self.terms.items()))

    @property
    def terms_key(self) -> str:
        return str([(_monomial_key(monomial), str(c)) for monomial, c in self.terms.items()])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Rational):
            other = constant(other)
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Count) -> Expr:
        total = dict(self.terms)
        for monomial, c in _expr(other).terms.items():
            total[monomial] = total.get(monomial, 0) + c
        return Expr(total)

    def __mul__(self, other: Count) -> Expr:
        total: dict[Monomial, Rational] = {}
        for left, a in self.terms.items():
            for right, b in _expr(other).terms.items():
                monomial = _product(left, right)
                total[monomial] = total.get(monomial, 0) + a * b
        return Expr(total)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Expr:
        return self * -1

    def __sub__(self, other: Count) -> Expr:
        return self + -other

    def __rsub__(self, other: Count) -> Expr:
        return -self + other

    def __floordiv__(self, other: Count) -> Count:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Count) -> Count:
        return floor_div(other, self)

    def __repr__(self) -> str:
        from .spelling import code

        return code(self)

    @property
    def value(self) -> Rational | None:
        """The number it is, if it holds no symbol."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None


Count = int | Expr
"""A number of something: known, or as an expression. Formulas take and give either."""


def symbol(name: str) -> Expr:
    return Expr({((Symbol(name), 1),): 1})


def constant(value: Rational) -> Expr:
    return Expr({(): value})


def _expr(value: Expr | Rational) -> Expr:
    return value if isinstance(value, Expr) else constant(value)


def _plain(value: Rational) -> Rational:
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 else value


def _product(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].key))


def _monomial_key(monomial: Monomial) -> tuple[int, list[tuple[tuple[int, str], int]]]:
    """High degrees first, then by atoms."""
    degree = sum(power for _, power in monomial)
    return -degree, [(atom.key, -power) for atom, power in monomial]


# --------------------------------------------------------------------------------------- functions


def floor_div(a: Count, b: Count) -> Count:
    """floor(a / b), for b >= 1. Whole multiples of a number b leave the floor."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    top = _expr(a)
    if not isinstance(b, int):
        return _call("floor", top, b)
    if all(c < 0 for c in top.terms.values()):
        return -ceil_div(-top, b)
    out, rest = _split(top, b)
    if rest.value is not None and rest.value.denominator == 1:
        return out + int(rest.value) // b
    return out + _call("floor", rest, constant(b))


def ceil_div(a: Count, b: Count) -> Count:
    """ceil(a / b), for b >= 1."""
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    top = _expr(a)
    if not isinstance(b, int):
        return _call("ceil", top, b)
    out, rest = _split(top, b)
    if rest.value is not None and rest.value.denominator == 1:
        return out - (-int(rest.value) // b)
    return out + _call("ceil", rest, constant(b))


def _split(top: Expr, divisor: int) -> tuple[Expr, Expr]:
    """What a number divides, divided, and the rest."""
    whole = {m: c for m, c in top.terms.items() if isinstance(c, int) and c % divisor == 0}
    rest = {m: c for m, c in top.terms.items() if m not in whole}
    return Expr({m: int(c) // divisor for m, c in whole.items()}), Expr(rest)


@overload
def exact_div(a: int, b: int) -> int: ...
@overload
def exact_div(a: Expr, b: int) -> Expr: ...
@overload
def exact_div(a: Count, b: int) -> Count: ...
def exact_div(a: Count, b: int) -> Count:
    """a / b, where b divides a for all whole numbers that symbols may stand for."""
    if isinstance(a, Expr):
        return Expr({m: Fraction(c) / b for m, c in a.terms.items()})
    assert a % b == 0, f"{b} does not divide {a}"
    return a // b


def least(a: Count, b: Count) -> Count:
    """min(a, b)."""
    return _extreme("min", a, b)


def greatest(a: Count, b: Count) -> Count:
    """max(a, b)."""
    return _extreme("max", a, b)


def _extreme(function: Literal["min", "max"], a: Count, b: Count) -> Count:
    choose: Callable[[Rational, Rational], Rational] = min if function == "min" else max
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b) if function == "min" else max(a, b)
    left, right = _expr(a), _expr(b)
    difference = (left - right).value
    if difference is not None:
        return left if choose(difference, 0) == difference else right
    pair = sorted((left, right), key=lambda argument: argument.terms_key)
    return Expr({((Call(function, tuple(pair)), 1),): 1})


def power_of_two(a: Count) -> Count:
    """The least power of two that is a or more, for a >= 1."""
    if isinstance(a, int):
        return 1 << max(0, a - 1).bit_length()
    return _call("power", a)


def reached(a: Count, b: Count) -> Count:
    """1 from a = b on, 0 below."""
    return least(1, greatest(0, a - b + 1))


def _call(function: Function, *arguments: Expr) -> Count:
    values = [argument.value for argument in arguments]
    if None not in values:
        return _whole(_applied(function, [value for value in values if value is not None]))
    return Expr({((Call(function, arguments), 1),): 1})


def _applied(function: Function, values: list[Rational]) -> Rational:
    match function, values:
        case "floor", [a, b]:
            return a // b
        case "ceil", [a, b]:
            return -(-a // b)
        case "min", _:
            return min(values)
        case "max", _:
            return max(values)
        case "power", [a]:
            return 1 << max(0, int(a) - 1).bit_length()
    raise AssertionError(function)


# ---------------------------------------------------------------------------------------- in values


def at(count: Count, values: Mapping[str, Count]) -> Count:
    """With values for some of the symbols; an integer where none is left."""
    if isinstance(count, int):
        return count
    found = _at(count, values)
    value = found.value
    return found if value is None else _whole(value)


def number(count: Count, **values: int) -> int:
    """The integer that an expression is for values of all its symbols."""
    return value(count, values)


def value(count: Count, values: Mapping[str, int]) -> int:
    """The same, for values by name."""
    return count if isinstance(count, int) else _whole(_evaluated(count, values))


def _evaluated(expr: Expr, values: Mapping[str, int]) -> Rational:
    total: Rational = 0
    for monomial, c in expr.terms.items():
        term = c
        for atom, power in monomial:
            if isinstance(atom, Symbol):
                term *= values[atom.name] ** power
            else:
                arguments = [_evaluated(argument, values) for argument in atom.arguments]
                term *= _applied(atom.function, arguments) ** power
        total += term
    return total


def _at(expr: Expr, values: Mapping[str, Count]) -> Expr:
    total = constant(0)
    for monomial, c in expr.terms.items():
        term = constant(c)
        for atom, power in monomial:
            factor = atom_at(atom, values)
            for _ in range(power):
                term = term * factor
        total = total + term
    return total


def atom_at(atom: Atom, values: Mapping[str, Count]) -> Expr:
    if isinstance(atom, Symbol):
        return _expr(values[atom.name]) if atom.name in values else symbol(atom.name)
    return rebuilt(atom, [_at(argument, values) for argument in atom.arguments])


def rebuilt(atom: Call, arguments: list[Expr]) -> Expr:
    """A function of other arguments, simplified as when it is first written."""
    counts = [_count(argument) for argument in arguments]
    match atom.function, counts:
        case "floor", [a, b]:
            return _expr(floor_div(a, b))
        case "ceil", [a, b]:
            return _expr(ceil_div(a, b))
        case "min", [a, b]:
            return _expr(least(a, b))
        case "max", [a, b]:
            return _expr(greatest(a, b))
        case "power", [a]:
            return _expr(power_of_two(a))
    raise AssertionError(atom)


def _count(expr: Expr) -> Count:
    value = expr.value
    return int(value) if value is not None and value.denominator == 1 else expr


def _whole(value: Rational) -> int:
    assert value.denominator == 1, f"{value} is no whole number"
    return int(value)


def symbols(count: Count) -> frozenset[str]:
    """Names of the symbols that it depends on."""
    if isinstance(count, int):
        return frozenset()
    found: set[str] = set()
    for monomial in count.terms:
        for atom, _ in monomial:
            if isinstance(atom, Symbol):
                found.add(atom.name)
            else:
                found.update(*map(symbols, atom.arguments))
    return frozenset(found)
