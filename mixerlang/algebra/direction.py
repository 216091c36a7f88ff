"""Whether an expression rises or falls with a symbol, as far as its form tells."""

from __future__ import annotations

from .expression import Call, Expr, Monomial, Symbol


def direction(expr: Expr, name: str) -> int | None:
    """1 where it never falls as the symbol grows, -1 where it never rises, 0 where it stays; None
    where its form does not tell."""
    found = {_signed(_of_monomial(monomial, name), c > 0) for monomial, c in expr.terms.items()}
    return _shared(found)


def _signed(way: int | None, positive: bool) -> int | None:
    return way if way is None or positive else -way


def _shared(ways: set[int | None]) -> int | None:
    """Of what several terms or arguments make up."""
    moving = ways - {0}
    return 0 if not moving else moving.pop() if len(moving) == 1 else None


def _of_monomial(monomial: Monomial, name: str) -> int | None:
    """Symbols are 0 or more; functions may be less, so that of these a product holds one."""
    calls = [(atom, power) for atom, power in monomial if isinstance(atom, Call)]
    rises = any(isinstance(atom, Symbol) and atom.name == name for atom, _ in monomial)
    if not calls:
        return int(rises)
    ways = {_of_call(call, name) for call, _ in calls}
    if ways == {0}:
        return None if rises else 0
    if rises or len(calls) > 1 or calls[0][1] > 1:
        return None
    return ways.pop()


def _of_call(call: Call, name: str) -> int | None:
    """All of them rise with what they are of, quotients with what is divided by a number."""
    ways = {direction(argument, name) for argument in call.arguments}
    if call.function in ("floor", "ceil") and ways != {0} and call.arguments[1].value is None:
        return None
    return _shared(ways)
