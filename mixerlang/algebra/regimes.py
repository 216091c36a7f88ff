"""Where an expression changes its form as a length grows, and what it is in between.

`min` and `max` are decided once and for all inside a regime where their arguments cross at most
once as the length grows (a length against a window, a count against a budget). Where that cannot be
told from their form they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from .direction import direction
from .expression import Call, Count, Expr, Symbol, at, constant, rebuilt, symbols, value
from .spelling import PRETTY

FAR = 2**48
"""No length is beyond it."""


@dataclass(frozen=True)
class Regime:
    """Lengths from `first` to `last` (None: any), and the expression without the choices that
    these lengths decide."""

    first: int
    last: int | None
    count: Count

    def holds(self, length: int) -> bool:
        return self.first <= length and (self.last is None or length <= self.last)


def regimes(
    count: Count, name: str = "T", given: Mapping[str, int] | None = None, low: int = 1
) -> list[Regime]:
    """Of lengths `name` from `low` on. given: values that decide on other symbols, 1 by default."""
    if isinstance(count, int):
        return [Regime(low, None, count)]
    others = {other: (given or {}).get(other, 1) for other in symbols(count) - {name}}
    edges = sorted({low, *_edges(count, name, others, low)})
    found: list[Regime] = []
    for first, after in reversed(list(zip(edges, [*edges[1:], None], strict=True))):
        last = None if after is None else after - 1
        own = simplified(count, name, others, first, last)
        if found and _joins(own, first == last, found[0], first, name):
            found[0] = Regime(first, found[0].last, found[0].count)
        else:
            found.insert(0, Regime(first, last, at(own, {name: first}) if first == last else own))
    return found


def _joins(count: Count, single: bool, after: Regime, length: int, name: str) -> bool:
    """Whether the next regime's form holds here too: for a single length, as a value."""
    if not single:
        return count == after.count
    return at(count, {name: length}) == at(after.count, {name: length})


def simplified(
    count: Count, name: str, others: Mapping[str, int], first: int, last: int | None
) -> Count:
    """With every choice made that is the same for all lengths in between."""
    if isinstance(count, int):
        return count
    ends = [{**others, name: first}, {**others, name: FAR if last is None else last}]
    found = _simplified(count, ends)
    known = found.value
    return found if known is None or known.denominator != 1 else int(known)


def _simplified(expr: Expr, ends: list[dict[str, int]]) -> Expr:
    total = constant(0)
    for monomial, c in expr.terms.items():
        term = constant(c)
        for atom, power in monomial:
            factor = _decided(atom, ends)
            for _ in range(power):
                term = term * factor
        total = total + term
    return total


def _decided(atom: Symbol | Call, ends: list[dict[str, int]]) -> Expr:
    if isinstance(atom, Symbol):
        return Expr({((atom, 1),): 1})
    arguments = [_simplified(argument, ends) for argument in atom.arguments]
    name = _moving(ends)
    itself = Expr({((atom, 1),): 1})
    if symbols(itself) <= {name} and direction(itself, name) is not None:
        first, last = (value(itself, end) for end in ends)
        if first == last:
            return constant(first)
    if atom.function in ("min", "max") and direction(arguments[0] - arguments[1], name) is not None:
        left, right = arguments
        signs = [_sign(left - right, end) for end in ends]
        if atom.function == "max":
            left, right = right, left
        if max(signs) <= 0:
            return left
        if min(signs) >= 0:
            return right
    return rebuilt(atom, arguments)


def _moving(ends: list[dict[str, int]]) -> str:
    """The symbol whose values the ends are; the last, where a regime is a single length."""
    return list(ends[0])[-1]


def _edges(count: Expr, name: str, others: Mapping[str, int], low: int) -> Iterator[int]:
    """Lengths where a choice turns out otherwise for the first time."""
    for call in _calls(count):
        if call.function not in ("min", "max"):
            continue
        difference = call.arguments[0] - call.arguments[1]
        if direction(difference, name) is not None:
            edge = turn(partial(_sign_at, difference, others, name), low)
            if edge is not None:
                yield edge


def _sign_at(difference: Expr, others: Mapping[str, int], name: str, length: int) -> int:
    return _sign(difference, {**others, name: length})


def _calls(expr: Expr) -> Iterator[Call]:
    for monomial in expr.terms:
        for atom, _ in monomial:
            if isinstance(atom, Call):
                yield atom
                for argument in atom.arguments:
                    yield from _calls(argument)


def turn(sign: Callable[[int], int], low: int, high: int = FAR) -> int | None:
    """The first length where a sign is opposite to that at `low`, not 0 where that is 0; None if
    it is none up to `high`. The sign changes at most once."""
    start = sign(low)

    def turned(length: int) -> bool:
        found = sign(length)
        return found != 0 if start == 0 else found == -start

    if not turned(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if turned(middle) else (middle, high)
    return high


def _sign(difference: Expr, values: Mapping[str, int]) -> int:
    found = value(difference, values)
    return (found > 0) - (found < 0)


# -------------------------------------------------------------------------------------------- order


def order(count: Count, name: str = "T") -> str:
    """What an expression without choices grows like: "O(B·T²)"."""
    leading = _leading(count)
    highest = max((dict(powers).get(name, 0) for powers in leading), default=0)
    top = {powers for powers in leading if dict(powers).get(name, 0) == highest}
    alone = [powers for powers in top if not any(_divides(powers, other) for other in top)]
    spelled = sorted(
        PRETTY.monomial(1, tuple((Symbol(s), p) for s, p in powers)) or "1" for powers in alone
    )
    return f"O({' + '.join(spelled) or '1'})"


Powers = tuple[tuple[str, int], ...]


def _leading(count: Count) -> set[Powers]:
    """The powers of symbols in each term; a quotient grows like its numerator over a number."""
    if isinstance(count, int):
        return {()}
    found: set[Powers] = set()
    for monomial in count.terms:
        products: set[Powers] = {()}
        for atom, power in monomial:
            factors = {((atom.name, 1),)} if isinstance(atom, Symbol) else _leading_of(atom)
            for _ in range(power):
                products = {_times(a, b) for a in products for b in factors}
        found |= products
    return found


def _leading_of(call: Call) -> set[Powers]:
    if call.function in ("min", "max"):
        return set().union(*map(_leading, call.arguments))
    return _leading(call.arguments[0])


def _times(left: Powers, right: Powers) -> Powers:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted(powers.items()))


def _divides(left: Powers, right: Powers) -> bool:
    powers = dict(right)
    return left != right and all(powers.get(name, 0) >= power for name, power in left)
