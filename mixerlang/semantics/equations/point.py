"""Which point of the space of `recurrence(...)` a user's equations are, if they are one.

What they give is compared with what the space's own equations give, both written out as sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .body import Body, needed_names
from .declared import Operand
from .expand import Expander, Sum, TooMany, constant, symbol
from .node import OUTPUT, Axes

MATRIX = ("key", "value")
ONE = Fraction(1)


@dataclass(frozen=True)
class Point:
    """update: `additive`, its `step` what multiplies k v^T (`gate`, `step` or none), or `delta`
    with `scale` its largest b. decay: the operand that is its decay."""

    update: str
    step: str | None
    scale: Fraction
    decay: str | None
    normalize: bool
    skip: bool


class NoPoint(Exception):
    """Why equations are no point of the space."""


def point_of(body: Body, ones: frozenset[str], spend: Callable[[], None]) -> Point:
    """The point of a recurrence. ones: operands that are 1 here (decay=none). spend: pays for each
    step. Raises NoPoint."""
    try:
        return _Finder(body, ones, spend).point()
    except TooMany:
        raise NoPoint("its equations have too many terms to compare") from None


class _Finder:
    def __init__(self, body: Body, ones: frozenset[str], spend: Callable[[], None]) -> None:
        self.expander = Expander(spend)
        needed = needed_names(body.lines)
        self.states = {name: axes for name, axes in body.found.states.items() if name in needed}
        operands = body.found.operands
        self.used = [each for name, each in operands.items() if name in needed - ones]
        known = {name: symbol(name, axes) for name, axes in body.found.states.items()}
        known |= {name: symbol(name, each.axes) for name, each in operands.items()}
        known |= {name: constant(ONE) for name in ones}
        self.known = known
        self.after = self.expander.lines(body.lines, known)

    def point(self) -> Point:
        self._refuse_extra()
        state, total = self._states()
        decay = self._one("decay", "decays")
        if decay is not None and decay.axes == ("value",):
            raise NoPoint(f"`{decay.name}` decays the channels of values")
        factor, step = self._step()
        gone = constant(ONE) if decay is None else self.known[decay.name]
        after, update, scale = self._update(state, gone, factor, step)
        skip = self._output(after, total, gone, factor)
        if total is not None and update == "delta":
            raise NoPoint("the delta rule of the space has no normalizer")
        return Point(update, step, scale, decay.name if decay else None, total is not None, skip)

    # ---------------------------------------------------------------------------- what is used

    def _of(self, made: str) -> list[Operand]:
        return [each for each in self.used if each.made == made]

    def _one(self, made: str, several: str) -> Operand | None:
        """The operand of a kind, if there is one. Raises NoPoint for two."""
        found = self._of(made)
        if len(found) > 1:
            names = " and ".join(f"`{each.name}`" for each in found)
            raise NoPoint(f"it has {len(found)} {several}, {names}")
        return found[0] if found else None

    def _refuse_extra(self) -> None:
        self._one("key", "keys")
        self._one("value", "values")
        names = {each.name for each in self.used}
        for name in ("q", "k", "v"):
            if name not in names:
                raise NoPoint(f"it has no `{name}`")

    def _states(self) -> tuple[str, str | None]:
        """The matrix, and the vector of a normalizer."""
        matrices = [name for name, axes in self.states.items() if len(axes) == 2]
        vectors = [name for name, axes in self.states.items() if len(axes) == 1]
        if len(matrices) != 1 or len(vectors) > 1:
            names = ", ".join(f"`{name}`" for name in self.states)
            raise NoPoint(f"its states are {names}: the space has one matrix, and one sum of keys")
        if vectors and self.states[vectors[0]] != ("key",):
            raise NoPoint(f"the vector `{vectors[0]}` is no sum of keys")
        return matrices[0], vectors[0] if vectors else None

    def _step(self) -> tuple[Sum, str | None]:
        """What multiplies k v^T, and which kind of operand that is."""
        gate, step = self._one("gate", "gates"), self._one("step", "steps")
        if gate is not None and step is not None:
            raise NoPoint("it has both a gate and a step")
        found = gate or step
        if found is None:
            return constant(ONE), None
        if found.axes:
            raise NoPoint(f"the gate `{found.name}` has one number per channel")
        return self.known[found.name], found.made

    # -------------------------------------------------------------------------- the comparison

    def _update(
        self, state: str, gone: Sum, factor: Sum, step: str | None
    ) -> tuple[Sum, str, Fraction]:
        """The state (key, value) after the token, the kind of update, and its scale."""
        e, axes = self.expander, self.states[state]
        before, after = (
            self._upright(self.known[state], axes),
            self._upright(self.after[state], axes),
        )
        decayed = e.multiply(gone, before)
        k, v = self.known["k"], self.known["v"]
        written = e.multiply(factor, e.outer(k, v))
        (product,) = written.terms
        scale = after.terms.get(product, Fraction(0))
        if scale and after == e.add(decayed, e.scale(written, scale)):
            if scale != 1:
                raise NoPoint(f"it writes {scale} times what the space writes")
            return after, "additive", scale
        error = e.add(v, e.scale(e.contract(e.transpose(decayed), k), Fraction(-1)))
        corrected = e.scale(e.multiply(factor, e.outer(k, error)), scale)
        if not scale or after != e.add(decayed, corrected):
            raise NoPoint(
                f"what `{state}` becomes is neither the additive update of the space nor "
                "its delta rule"
            )
        if step != "gate" or not 0 < scale <= 2:
            raise NoPoint("the delta rule of the space is written with a gate b, at most 2 * b")
        return after, "delta", scale

    def _upright(self, value: Sum, axes: Axes) -> Sum:
        return value if axes == MATRIX else self.expander.transpose(value)

    def _output(self, after: Sum, total: str | None, gone: Sum, factor: Sum) -> bool:
        """Whether o has a skip, d v, beside what the space reads. Raises NoPoint for another o."""
        e, q = self.expander, self.known["q"]
        read = e.contract(e.transpose(after), q)
        if total is not None:
            summed = e.add(e.multiply(gone, self.known[total]), e.multiply(factor, self.known["k"]))
            if self.after[total] != summed:
                raise NoPoint(f"`{total}` is not the sum of keys that the space divides by")
            read = e.divide(read, e.contract(summed, q))
        if self.after[OUTPUT] == read:
            return False
        weight = self._one("weight", "weights")
        if weight is not None and not weight.axes:
            skip = e.multiply(self.known[weight.name], self.known["v"])
            if self.after[OUTPUT] == e.add(read, skip):
                return True
        raise NoPoint("what `o` reads is not S.T @ q of the state after the token")
