"""Equations as sums of products in index notation, so that equal ones look equal.

`b * outer(k, v - S.T @ k)` is b k_0 v_1 - b k_0 k_i S_i1: a product holds every symbol with its
indices, 0 and 1 those of the value itself, others summed over. What is no sum of products (a
division, a function) stands as a symbol of its own. States stand for their values before the token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from .node import IDENTITY, Axes, Line, Node

Factor = tuple[str, tuple[int, ...]]
Product = tuple[Factor, ...]

ZERO = Fraction(0)
DELTA = "\u03b4"
"""The identity: its two indices are equal."""

BOUND = 2
"""The first index that is summed over."""
LEFT, RIGHT, SUMMED = 1_000, 2_000, 3_000
"""Where such indices of two factors, and a new one, are numbered until they are in order."""

TERMS, FACTORS, WORK = 100, 24, 4_000
"""Products of a sum, symbols of a product, and products made for one recurrence, at most."""


class TooMany(Exception):
    """The sums are longer than anyone would compare."""


@dataclass(frozen=True)
class Sum:
    """axes of the value, and the number before each product."""

    axes: Axes
    terms: Mapping[Product, Fraction]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.axes, self.terms) == (other.axes, other.terms)

    __hash__ = None  # type: ignore[assignment]


def symbol(name: str, axes: Axes) -> Sum:
    """A name by itself."""
    return Sum(axes, {((name, tuple(range(len(axes)))),): Fraction(1)})


def constant(value: Fraction) -> Sum:
    return Sum((), {(): value} if value else {})


class Expander:
    """Expands the values of one recurrence. spend: pays for each step."""

    def __init__(self, spend: Callable[[], None]) -> None:
        self.spend = spend
        self.work = 0
        self._opaque: dict[object, str] = {}

    # --------------------------------------------------------------------------------- lines

    def lines(self, lines: Iterable[Line], known: dict[str, Sum]) -> dict[str, Sum]:
        """Every name after the last line, where `known` are states and operands before."""
        values = dict(known)
        for line in lines:
            values[line.target] = self.node(line.node, values)
        return values

    def node(self, node: Node, values: Mapping[str, Sum]) -> Sum:
        if node.op == "name":
            return values[node.name]
        if node.op == "number":
            return constant(node.number)
        if node.op == IDENTITY:
            return Sum(node.axes, {((DELTA, (0, 1)),): Fraction(1)})
        inputs = [self.node(each, values) for each in node.inputs]
        match node.op, inputs:
            case "+", (x, y):
                return self.add(x, y)
            case "-", (x, y):
                return self.add(x, self.scale(y, Fraction(-1)))
            case "negate", (x,):
                return self.scale(x, Fraction(-1))
            case "*", (x, y):
                return self.multiply(x, y)
            case "/", (x, y):
                return self.divide(x, y)
            case "@", (x, y):
                return self.contract(x, y)
            case "outer", (x, y):
                return self.outer(x, y)
            case "T", (x,):
                return self.transpose(x)
            case "diag", (x,):
                return self.multiply(Sum(node.axes, {((DELTA, (0, 1)),): Fraction(1)}), x, (0,))
        return self.opaque(node.op, inputs[0])

    # ----------------------------------------------------------------------------- arithmetic

    def add(self, x: Sum, y: Sum) -> Sum:
        axes = max(x.axes, y.axes, key=len)
        total = dict(x.terms)
        for product, factor in y.terms.items():
            total[product] = total.get(product, ZERO) + factor
        return self._sum(axes, total)

    def scale(self, x: Sum, factor: Fraction) -> Sum:
        return self._sum(x.axes, {product: factor * each for product, each in x.terms.items()})

    def multiply(self, x: Sum, y: Sum, places: tuple[int, ...] | None = None) -> Sum:
        """Channel by channel. places: which indices of the larger those of the smaller are."""
        small, large = sorted((x, y), key=lambda each: len(each.axes))
        if places is None:
            same = small.axes == large.axes
            places = (
                tuple(range(len(small.axes)))
                if same
                else tuple(large.axes.index(axis) for axis in small.axes)
            )
        return self._product(large.axes, large, (0, 1), small, places)

    def divide(self, x: Sum, y: Sum) -> Sum:
        number = y.terms.get((), None)
        if number is not None and len(y.terms) == 1:
            return self.scale(x, 1 / number)
        return self.multiply(x, self.opaque("1/", y))

    def contract(self, x: Sum, y: Sum) -> Sum:
        """The last index of x with the first of y."""
        left = (0, SUMMED) if len(x.axes) == 2 else (SUMMED,)
        right = (SUMMED, len(x.axes) - 1)
        return self._product(x.axes[:-1] + y.axes[1:], x, left, y, right)

    def outer(self, x: Sum, y: Sum) -> Sum:
        return self._product(x.axes + y.axes, x, (0,), y, (1,))

    def transpose(self, x: Sum) -> Sum:
        return self._product(x.axes[::-1], x, (1, 0), constant(Fraction(1)), ())

    def opaque(self, what: str, x: Sum) -> Sum:
        """A function of a sum as a symbol: the same one for the same sum."""
        key = (what, x.axes, frozenset(x.terms.items()))
        return symbol(self._opaque.setdefault(key, f"#{len(self._opaque)}"), x.axes)

    def _product(
        self, axes: Axes, x: Sum, left: tuple[int, ...], y: Sum, right: tuple[int, ...]
    ) -> Sum:
        """Every product of one term each, whose own indices 0 and 1 become left and right."""
        total: dict[Product, Fraction] = {}
        for one, a in x.terms.items():
            for two, b in y.terms.items():
                self._pay(len(total))
                joined = _renamed(one, left, LEFT) + _renamed(two, right, RIGHT)
                product = canonical(joined)
                total[product] = total.get(product, ZERO) + a * b
        return self._sum(axes, total)

    def _sum(self, axes: Axes, terms: Mapping[Product, Fraction]) -> Sum:
        self._pay(len(terms))
        return Sum(axes, {key: value for key, value in terms.items() if value})

    def _pay(self, terms: int) -> None:
        self.spend()
        self.work += 1
        if terms > TERMS or self.work > WORK:
            raise TooMany


# -------------------------------------------------------------------------- products, in order


def _renamed(product: Product, own: tuple[int, ...], offset: int) -> Product:
    """Indices of the value to `own`; those summed over to numbers from `offset` on."""
    return tuple(
        (name, tuple(own[i] if i < BOUND else i - BOUND + offset for i in indices))
        for name, indices in product
    )


def canonical(product: Product) -> Product:
    """The same product with its symbols sorted and what it sums over numbered in that order."""
    if len(product) > FACTORS:
        raise TooMany
    product = _without_deltas(product)
    colours: dict[int, object] = {i: i if i < BOUND else BOUND for _, own in product for i in own}
    for _ in range(2):
        colours = {
            i: c if i < BOUND else _surroundings(i, product, colours) for i, c in colours.items()
        }
    ranked = sorted((i for i in colours if i >= BOUND), key=lambda i: repr(colours[i]))
    number = {i: BOUND + place for place, i in enumerate(ranked)}
    return tuple(
        sorted((name, tuple(number.get(i, i) for i in indices)) for name, indices in product)
    )


def _surroundings(index: int, product: Product, colours: Mapping[int, object]) -> object:
    """Where an index stands: symbols, places in them, and what stands beside it."""
    return sorted(
        (name, place, repr([colours[i] for i in indices]))
        for name, indices in product
        for place, i in enumerate(indices)
        if i == index
    )


def _without_deltas(product: Product) -> Product:
    """Identities put in: of two equal indices the larger, a summed one first, is the smaller."""
    for place, (name, indices) in enumerate(product):
        if name != DELTA:
            continue
        kept, gone = sorted(indices)
        rest = product[:place] + product[place + 1 :]
        if kept == gone:
            return _without_deltas(rest)
        moved = tuple((n, tuple(kept if i == gone else i for i in own)) for n, own in rest)
        if gone >= BOUND:
            return _without_deltas(moved)
        if moved != rest:
            return _without_deltas((*moved[:place], (name, (kept, gone)), *moved[place:]))
    return product
