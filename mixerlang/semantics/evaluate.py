"""Expressions to values: lazily, exactly, within bounds, as their place expects."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ..diagnostics import Help, Note
from ..diagnostics.suggest import did_you_mean
from ..primitives import Term
from ..primitives.base import Origin
from ..primitives.combine import NoTerm
from ..source import Span
from ..syntax import ast
from . import registry
from .arithmetic import Rejected, bounded, combine, is_number
from .budget import Budget
from .call import Calls
from .dataflow import Builder
from .expect import ANYTHING, Expect, of_kinds
from .report import Reporter
from .values import (
    BROKEN,
    BlockValue,
    Closure,
    Constructors,
    Env,
    Failed,
    RecurrenceRule,
    Stream,
    Thunk,
    described,
    kind_of,
)

DEPTH_LIMIT = 100
KEEP = of_kinds("keep")
CHAINED = frozenset({"feature", "mixer"})


class Evaluator:
    """Evaluates the expressions of one model. `builder` records streams inside a block."""

    def __init__(self, report: Reporter, budget: Budget) -> None:
        self.report = report
        self.budget = budget
        self.builder: Builder | None = None
        self.calls = Calls(self)
        self._depth = 0

    # ------------------------------------------------------------------------------ the walk

    def evaluate(self, expr: ast.Expr, env: Env, expect: Expect = ANYTHING) -> Any:
        """The value of an expression as its place expects. Raises Failed, having reported."""
        return self.coerce(self.raw(expr, env, expect), expect, expr, env)

    def raw(self, expr: ast.Expr, env: Env, expect: Expect) -> Any:
        """The value of an expression, made for `expect` as far as it can be, but not held to it."""
        self.spend(1, expr.span)
        if self._depth >= DEPTH_LIMIT:
            self.fail("MX010", expr.span, f"definitions nest deeper than {DEPTH_LIMIT}")
        self._depth += 1
        try:
            return self._value(expr, env, expect)
        except RecursionError:  # the caller's own stack is deep already
            return self.fail("MX010", expr.span, "definitions nest too deep for this stack")
        finally:
            self._depth -= 1

    def _value(self, expr: ast.Expr, env: Env, expect: Expect) -> Any:
        match expr:
            case ast.Number():
                if not expr.sound:
                    raise Failed
                return self._checked(expr.span, bounded, expr.value)
            case ast.Boolean():
                return expr.value
            case ast.Name():
                return self.name(expr, env, expect)
            case ast.Call():
                return self.calls.call(expr, env, expect)
            case ast.ListExpr():
                return self._list(expr, env, expect)
            case ast.Binary():
                return self._binary(expr, env, expect)
            case ast.Unary():
                value = self.evaluate(expr.operand, env)
                if not (is_number(value) or isinstance(value, Stream | NoTerm)):
                    self.fail("MX301", expr.span, f"`-` takes a number, not {described(value)}")
                return self.combine("*", -1, value, expr.span)
            case ast.String():
                return self.fail("MX301", expr.span, "a string has no use here",
                                 help="words are written without quotes")
            case ast.Attribute():
                return self.fail("MX301", expr.span,
                                 f"`.{expr.name.id}` belongs into a recurrence rule")

    def _list(self, expr: ast.ListExpr, env: Env, expect: Expect) -> tuple[Any, ...]:
        return self.items(expr.items, env, expect.item or ANYTHING)

    def items(self, parts: tuple[ast.Expr, ...], env: Env, item: Expect) -> tuple[Any, ...]:
        """The values of items; BROKEN for one without a value."""
        return tuple(self._or_broken(part, env, item) for part in parts)

    def _or_broken(self, expr: ast.Expr, env: Env, expect: Expect) -> Any:
        try:
            return self.evaluate(expr, env, expect)
        except Failed:
            return BROKEN

    def _binary(self, expr: ast.Binary, env: Env, expect: Expect) -> Any:
        """Operands of a chain `a + b + c` from the left, without recursion along the chain."""
        chain = [expr]
        while isinstance(chain[-1].left, ast.Binary):
            chain.append(chain[-1].left)
        links = chain[::-1]
        operands = [(links[0].left, links[0].op), *((link.right, link.op) for link in links)]
        values = [self._operand(operand, env, op, expect) for operand, op in operands]
        if any(value is BROKEN for value in values):
            raise Failed
        value = values[0]
        for link, right in zip(links, values[1:], strict=True):
            value = self.combine(link.op, value, right, link.span)
        return value

    def _operand(self, expr: ast.Expr, env: Env, op: str, expect: Expect) -> Any:
        """Operands of `|`, `&` are keeps; of `>>` what the whole is; lists pass items on.

        BROKEN for one without a value, so that the mistakes of all operands are told.
        """
        if op in ("+", "*"):
            return self._hinted(expr, env, expect if expect.item is not None else ANYTHING)
        wanted = {"|": KEEP, "&": KEEP, ">>": Expect(expect.kinds & CHAINED)}
        return self._or_broken(expr, env, wanted.get(op, ANYTHING))

    def _hinted(self, expr: ast.Expr, env: Env, hint: Expect) -> Any:
        """Like evaluate, for a place that takes other values too: a list, or how often."""
        try:
            return self.raw(expr, env, hint)
        except Failed:
            return BROKEN

    def combine(self, op: str, left: Any, right: Any, span: Span) -> Any:
        """left op right, streams included."""
        if isinstance(left, Stream | NoTerm) or isinstance(right, Stream | NoTerm):
            return self._on_streams(op, left, right, span)
        value = self._checked(span, combine, op, left, right, span)
        if isinstance(value, tuple):
            self.spend(len(value), span)
        return value

    def _on_streams(self, op: str, left: Any, right: Any, span: Span) -> Any:
        for value in (left, right):
            if not (isinstance(value, Stream | NoTerm) or (op == "*" and is_number(value))):
                self.fail("MX301", span, f"`{op}` does not join {described(left)} and "
                          f"{described(right)}")
        if self.builder is not None and op == "+":
            return self.builder.add(left, right, span)
        if self.builder is not None and op == "*":
            return self.builder.multiply(left, right, span)
        return self.fail("MX301", span, f"`{op}` is not defined on streams",
                         help="streams take + and *")

    def _checked(self, span: Span, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Rejected as error:
            self.fail(error.code, span, error.message, help=error.help)

    # ---------------------------------------------------------------------------------- names

    def name(self, expr: ast.Name, env: Env, expect: Expect) -> Any:
        """A word that the place lists, else what a definition or the language provides."""
        if expr.id in expect.words:
            return expr.id
        bound = env.find(expr.id)
        made = None if expect.optional and expr.id == "none" else self.constructors(expr.id, expect)
        if bound is not None:
            value = self.force(bound, expect, expr.span)
            if made is None or self.fits(value, expect):
                return value
        if made is not None:
            return made
        if expr.id == "none":
            return NoTerm()
        if expr.id in registry.constructors():
            return Constructors(expr.id, registry.constructors()[expr.id])
        if expr.id in registry.words():
            return expr.id
        return self.unknown(expr, env, expect)

    def constructors(self, name: str, expect: Expect) -> Constructors | None:
        """What a provided name alone means where a term of some kind is expected."""
        by_kind = registry.constructors().get(name)
        if by_kind is None or expect.kinds.isdisjoint(by_kind):
            return None
        kind = next(kind for kind in registry.ranked(by_kind) if kind in expect.kinds)
        return Constructors(name, {kind: by_kind[kind]})

    def unknown(self, expr: ast.Name, env: Env, expect: Expect) -> Any:
        def help() -> str | None:
            names = env.visible() | registry.constructors().keys() | registry.words()
            return did_you_mean(expr.id, expect.words) or did_you_mean(expr.id, names)

        text = f", expected {expect.describe()}" if expect.words else ""
        return self.fail("MX201", expr.span, f"unknown name `{expr.id}`{text}", help=help)

    def force(self, bound: Any, expect: Expect, use: Span) -> Any:
        """The value of what a name is bound to, evaluated once per expectation."""
        if not isinstance(bound, Thunk):
            return bound
        bound.used = True
        wanted = bound.annotation or expect
        if bound.failed:
            raise Failed
        if wanted in bound.results:
            return bound.results[wanted]
        if bound.busy:
            self.fail("MX206", use, f"`{use.text}` is defined by itself",
                      notes=(Note("the definition", bound.span or bound.expr.span),))
        bound.busy = True
        try:
            value = self._thunk(bound, wanted)
        except Failed:
            bound.failed = True
            raise
        finally:
            bound.busy = False
        bound.results[ANYTHING if isinstance(value, Stream) else wanted] = value
        return value

    def _thunk(self, bound: Thunk, wanted: Expect) -> Any:
        """The value of a thunk that has none yet for this expectation."""
        if isinstance(bound.results.get(ANYTHING), Stream):
            return bound.results[ANYTHING]  # evaluating it again would record its steps again
        value = self._label(self.raw(bound.expr, bound.env, wanted), bound)
        if bound.annotation is not None:
            value = self.coerce(value, bound.annotation, bound.expr, bound.env)
        if bound.range is not None:
            self.check_range(value, bound.range, bound.env, bound.expr.span)
        return value

    def _label(self, value: Any, bound: Thunk) -> Any:
        if bound.label is None or not isinstance(value, Term) or isinstance(value, BlockValue):
            return value
        origin = value.origin
        return value.replace(origin=Origin(origin.span, origin.fields, bound.label))

    def check_range(self, value: Any, range: ast.Range, env: Env, span: Span) -> None:
        """A value of a parameter lies in its `low..high`."""
        low, high = self.evaluate(range.low, env), self.evaluate(range.high, env)
        if not (is_number(low) and is_number(high)):
            self.fail("MX301", range.span, "the ends of a range are numbers")
        if low > high:
            self.fail("MX302", range.span, f"the range {low}..{high} is empty")
        notes = (Note("the range", range.span),)
        if not is_number(value):
            self.fail("MX301", span, f"expected a number in {low}..{high}, found "
                      f"{described(value)}", notes=notes)
        if not low <= value <= high:
            self.fail("MX302", span, f"{value} is outside {low}..{high}", notes=notes)

    # ---------------------------------------------------------------------------------- types

    def fits(self, value: Any, expect: Expect) -> bool:
        """Whether coerce would take the value."""
        if not expect.kinds or (expect.optional and isinstance(value, NoTerm)):
            return True
        if isinstance(value, str):
            return value in expect.words
        if isinstance(value, Constructors):
            return bool(expect.kinds & value.by_kind.keys())
        kind = kind_of(value)
        return kind in expect.kinds or (expect.number in (float, Fraction) and is_number(value))

    def coerce(self, value: Any, expect: Expect, expr: ast.Expr, env: Env) -> Any:
        """The value as its place takes it, or a diagnostic."""
        if isinstance(value, Constructors) and expect.kinds:
            value = self.calls.bare(value, expect, expr)
        if not expect.kinds:
            return value
        if not self.fits(value, expect):
            self.mismatch(value, expect, expr, env)
        if expect.optional and isinstance(value, NoTerm):
            return None
        if expect.item is not None:
            return self._items(value, expect.item, expr, env)
        return value

    def _items(self, value: Any, item: Expect, expr: ast.Expr, env: Env) -> tuple[Any, ...]:
        """Items that were made before their place was known, each once."""
        seen: dict[int, Any] = {id(BROKEN): BROKEN}
        for part in value:
            if id(part) not in seen:
                seen[id(part)] = self.coerce(part, item, expr, env)
        return tuple(seen[id(part)] for part in value)

    def mismatch(self, value: Any, expect: Expect, expr: ast.Expr, env: Env) -> None:
        found = described(value)
        if isinstance(value, int | Fraction | str) and not isinstance(value, bool):
            found += f" ({value})"
        help = None
        if isinstance(value, Closure | RecurrenceRule):
            help = f"call it: {value.name}(...)"
        elif isinstance(value, str):
            help = did_you_mean(value, expect.words)
        elif expect.item is not None:
            help = "write it in brackets: [...]"
        self.fail("MX301", self.blame(expr, env),
                  f"expected {expect.describe()}, found {found}", help=help)

    def blame(self, expr: ast.Expr, env: Env) -> Span:
        """The place to mend: where a name is the argument of a function, what was passed."""
        for _ in range(DEPTH_LIMIT):
            bound = env.find(expr.id) if isinstance(expr, ast.Name) else None
            if not isinstance(bound, Thunk) or not bound.argument:
                break
            expr, env = bound.expr, bound.env
        return expr.span

    # --------------------------------------------------------------------------------- bounds

    def spend(self, steps: int, span: Span) -> None:
        self.budget.spend(steps, span, self.report)

    def fail(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        help: Help = None,
        notes: tuple[Note, ...] = (),
    ) -> Any:
        self.report(code, span, message, help=help, notes=notes)
        raise Failed
