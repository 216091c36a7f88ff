"""Expressions as text: as Python that evaluates to them, and for readers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from .expression import Call, Count, Expr, Monomial, Rational, Symbol

POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def code(count: Count) -> str:
    """Python that evaluates to it: "2*B*T*(T + 64)", "(-(-T // 64))"."""
    return CODE.spell(count)


def pretty(count: Count) -> str:
    """For a reader: "2·B·T·(T + 64)", "⌈T/64⌉"."""
    return PRETTY.spell(count)


@dataclass(frozen=True)
class Style:
    times: str
    drawn: bool

    def spell(self, count: Count) -> str:
        if isinstance(count, int):
            return self.number(count)
        if not count.terms:
            return "0"
        divisor, common, factor, left = _factored(count)
        if len(left) == 1 or (not common and factor == 1):
            text = self.sum({_product(common, m): c * factor for m, c in left.items()})
        else:
            text = f"{self.monomial(factor, common)}{self.times}({self.sum(left)})"
        if divisor == 1:
            return text
        if len(left) > 1 and not common:
            text = f"({text})"
        return f"{text}{'/' if self.drawn else '//'}{divisor}"

    def sum(self, terms: dict[Monomial, int]) -> str:
        text = ""
        for monomial, c in terms.items():
            sign = (" - " if c < 0 else " + ") if text else ("-" if c < 0 else "")
            text += sign + self.monomial(abs(c), monomial)
        return text

    def monomial(self, c: int, monomial: Monomial) -> str:
        factors = [self.atom(atom) + self.power(power) for atom, power in monomial]
        numbers = [self.number(c)] if c != 1 or not factors else []
        return self.times.join([*numbers, *factors])

    def number(self, value: Rational) -> str:
        return f"{value:,}" if self.drawn else str(value)

    def power(self, power: int) -> str:
        if power == 1:
            return ""
        return str(power).translate(POWERS) if self.drawn else f"**{power}"

    def atom(self, atom: Symbol | Call) -> str:
        if isinstance(atom, Symbol):
            return atom.name
        texts = [self.spell(argument) for argument in atom.arguments]
        parts = [
            f"({text})" if len(argument.terms) > 1 else text
            for text, argument in zip(texts, atom.arguments, strict=True)
        ]
        match atom.function:
            case "floor":
                return f"⌊{'/'.join(parts)}⌋" if self.drawn else f"({' // '.join(parts)})"
            case "ceil":
                return f"⌈{'/'.join(parts)}⌉" if self.drawn else f"(-(-{' // '.join(parts)}))"
            case "power":
                one_less = f"(1 << max(0, {parts[0]} - 1).bit_length())"
                return f"2^⌈log₂ {parts[0]}⌉" if self.drawn else one_less
        return f"{atom.function}({', '.join(texts)})"


CODE, PRETTY = Style("*", drawn=False), Style("·", drawn=True)


def _factored(expr: Expr) -> tuple[int, Monomial, int, dict[Monomial, int]]:
    """expr = common * factor * (what is left) / divisor, all coefficients whole."""
    divisor = lcm(*(Fraction(c).denominator for c in expr.terms.values()))
    whole = {monomial: int(c * divisor) for monomial, c in expr.terms.items()}
    shared = dict(next(iter(whole)))
    for monomial in whole:
        powers = dict(monomial)
        shared = {a: min(power, powers[a]) for a, power in shared.items() if a in powers}
    factor = gcd(*whole.values())
    left = {_quotient(monomial, shared): c // factor for monomial, c in whole.items()}
    return divisor, tuple(shared.items()), factor, left


def _quotient(monomial: Monomial, shared: dict[Symbol | Call, int]) -> Monomial:
    powers = [(atom, power - shared.get(atom, 0)) for atom, power in monomial]
    return tuple((atom, power) for atom, power in powers if power)


def _product(common: Monomial, monomial: Monomial) -> Monomial:
    powers = dict(common)
    for atom, power in monomial:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(powers.items())
