"""Programs: what a layer computes, as steps in static single assignment.

A block is evaluated once per distinct layer with streams in place of tensors; applying a mixer,
a norm, an ffn or an operator to streams records a step. `none` records nothing: ZERO passes
through what maps zero to zero and vanishes from sums. Every application is paid for, because
shared terms expand: with `let b = mean(a, a)` n times over, a layer has 2^n mixers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..primitives import Op, Term
from ..primitives import combine as c
from ..primitives import pointwise as p
from ..source import Span
from .values import Stream

X, X0 = 0, 1
"""The values that every program starts from: the layer's input and the embedding's output."""

ZERO = c.NoTerm()

STEP_COST = 5
"""What a step of a program costs, in steps of evaluation."""


def is_zero(value: Any) -> bool:
    return isinstance(value, c.NoTerm)


@dataclass(frozen=True, slots=True)
class Step:
    """One op on earlier values. Value n + 2 is the output of step n.

    tie: which weights, where they are tied: (identity of the `tied`, how manieth op inside).
    """

    op: Op
    inputs: tuple[int, ...]
    span: Span | None
    tie: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Program:
    """The steps of a layer and the value that leaves it."""

    steps: tuple[Step, ...]
    output: int


class Builder:
    """Records the steps of one layer of a model of width `dim`."""

    def __init__(self, dim: int, spend: Callable[[int], None]) -> None:
        self.dim = dim
        self.spend = spend
        self.steps: list[Step] = []
        self._ties: list[list[int]] = []

    def emit(self, op: Op, inputs: list[Stream], span: Span) -> Stream:
        self.spend(STEP_COST)
        tie = None
        if self._ties:
            identity, count = self._ties[-1]
            self._ties[-1][1] = count + 1
            tie = (identity, count)
        self.steps.append(Step(op, tuple(s.index for s in inputs), span, tie))
        return Stream(len(self.steps) + 1)

    def enter_tie(self, identity: int) -> None:
        self._ties.append([identity, 0])

    def leave_tie(self) -> None:
        self._ties.pop()

    def apply(self, term: Term, inputs: list[Any], span: Span) -> Any:
        """The stream that a term makes of streams; ZERO where it comes to nothing."""
        self.spend(1)
        if isinstance(term, p.Concat):
            inputs = [stream for stream in inputs if not is_zero(stream)]
        if is_zero(term) or not inputs or any(map(is_zero, inputs)):
            return ZERO
        if isinstance(term, c.Tied):
            self.enter_tie(term.identity)
            out = self.apply(term.value, inputs, span)
            self.leave_tie()
            return out
        if isinstance(term, c.Combined):
            return self._combined(term, inputs[0], span)
        assert isinstance(term, Op), term
        return self.emit(term, inputs, term.origin.span or span)

    def add(self, left: Any, right: Any, span: Span) -> Any:
        if is_zero(left) or is_zero(right):
            return right if is_zero(left) else left
        return self.emit(p.Add(), [left, right], span)

    def multiply(self, left: Any, right: Any, span: Span) -> Any:
        if is_zero(left) or is_zero(right):
            return ZERO
        if isinstance(left, Stream) and isinstance(right, Stream):
            return self.emit(p.Multiply(), [left, right], span)
        stream, number = (left, right) if isinstance(left, Stream) else (right, left)
        return self.scale(stream, float(Fraction(number)), span)

    def scale(self, stream: Any, factor: float, span: Span) -> Any:
        if factor == 0 or is_zero(stream):
            return ZERO
        return stream if factor == 1 else self.emit(p.ScaleBy(factor=factor), [stream], span)

    def _combined(self, term: c.Combined, x: Stream, span: Span) -> Any:
        if isinstance(term, c.Chain):
            out: Any = x
            for part in term.parts:
                out = self.apply(part, [out], span)
            return out
        outs = [self.apply(part, [x], span) for part in term.parts]
        live = [(i, out) for i, out in enumerate(outs) if not is_zero(out)]
        if not live:
            return ZERO
        streams = [out for _, out in live]
        place = term.origin.span or span
        if isinstance(term, c.Weighted):
            factors = [term.factors()[i] for i, _ in live]
            return self._weighted(term.learned, factors, streams, place)
        if isinstance(term, c.GatedMixers):
            return self.emit(p.GatedSum(streams=len(streams)), [*streams, x], place)
        assert isinstance(term, c.ConcatMixers), term
        joined = self.emit(p.Concat(), streams, place)
        return self.emit(p.Linear(out=self.dim), [joined], place)

    def _weighted(
        self, learned: bool, factors: list[float], streams: list[Stream], span: Span
    ) -> Any:
        if learned:
            return self.emit(p.WeightedSum(init=tuple(factors)), streams, span)
        if len(set(factors)) == 1:
            total: Any = streams[0]
            for stream in streams[1:]:
                total = self.add(total, stream, span)
            return self.scale(total, factors[0], span)
        total = ZERO
        for factor, stream in zip(factors, streams, strict=True):
            total = self.add(total, self.scale(stream, factor, span), span)
        return total

    def program(self, output: Stream) -> Program:
        """The steps that the output needs, renumbered; the rest never was."""
        needed: set[int] = set()
        stack = [output.index]
        while stack:
            value = stack.pop()
            if value >= 2 and value not in needed:
                needed.add(value)
                stack.extend(self.steps[value - 2].inputs)
        number = {X: X, X0: X0}
        kept: list[Step] = []
        for value in sorted(needed):
            step = self.steps[value - 2]
            inputs = tuple(number[i] for i in step.inputs)
            kept.append(Step(step.op, inputs, step.span, step.tie))
            number[value] = len(kept) + 1
        return Program(tuple(kept), number[output.index])


