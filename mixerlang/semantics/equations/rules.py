"""Calls of a recurrence: its equations with the arguments given, as a mixer."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from ...primitives import Term
from ...primitives import recurrence as r
from ...primitives.base import Origin
from ...source import Span
from ...syntax import ast
from ..arguments import match
from ..arithmetic import is_number
from ..construct import Construction
from ..expect import ANYTHING, of_kinds
from ..report import Reporter, listed
from ..values import Env, Failed, RecurrenceRule, described
from . import lower
from .body import Body, Reader, needed_names
from .check import Checker
from .declared import Declared, Operand, declared, fields
from .point import NoPoint, point_of

if TYPE_CHECKING:
    from ..evaluate import Evaluator

DECAY = of_kinds("decay")
STEP_COST = 5
"""What a step of comparing equations costs, in steps of evaluation."""

Given = dict[str, ast.Argument]


def check(rule: ast.RecurrenceDef, report: Reporter, env: Env) -> None:
    """Report what is wrong with a recurrence that nothing may call: with `a` as it is declared,
    and 1 in the place of numbers from outside."""
    parameters = {each.name.id for each in rule.parameters or ()}

    def number(name: ast.Name) -> Fraction | None:
        outside = name.id in parameters or env.find(name.id) is not None
        return Fraction(1) if outside else None

    try:
        checker = Checker(declared(rule, report), number, report, lambda span: None)
        Reader(rule, checker, report).body()
    except Failed:
        pass


class Rules:
    """Makes mixers of calls of recurrences."""

    def __init__(self, evaluator: Evaluator, construction: Construction) -> None:
        self.evaluator = evaluator
        self.construction = construction

    def call(self, rule: RecurrenceRule, expr: ast.Call, env: Env) -> Term:
        """The mixer of `rule(heads=..., ...)`. Raises Failed, having reported."""
        return _Call(self, rule, expr, env).term()


class _Call:
    def __init__(self, rules: Rules, rule: RecurrenceRule, expr: ast.Call, env: Env) -> None:
        self.evaluator = rules.evaluator
        self.report = rules.evaluator.report
        self.construction = rules.construction
        self.rule = rule
        self.expr = expr
        self.env = env
        self.found = declared(rule.definition, self.report)
        self.decays: dict[str, r.Decay] = {}

    def term(self) -> Term:
        if not self.found.sound:
            raise Failed
        given = self._given()
        scope = self._scope(given)
        base = self._base(given)
        self._shape_of_a(base)
        body = self._body(scope)
        self._refuse_decay(given, body)
        ones = frozenset(n for n, d in self.decays.items() if isinstance(d, r.NoDecay))
        made = self._made(base, body, ones)
        origin = base.origin
        return made.replace(origin=Origin(origin.span, origin.fields, self.rule.name))

    def _fail(self, code: str, span: Span | None, message: str, help: str | None = None) -> None:
        self.report(code, span, message, help=help)
        raise Failed

    # ------------------------------------------------------------------------------ arguments

    def _given(self) -> Given:
        """Arguments by name."""
        order = [*fields(self.found.operands), *self.found.parameters]
        places = match(self.report, f"`{self.rule.name}`", order, self.expr.arguments)
        if any(name is None for name, _ in places):
            raise Failed
        return {name: argument for name, argument in places if name is not None}

    def _scope(self, given: Given) -> Env:
        """The scope of the equations: parameters over what surrounds the definition."""
        local = Env({}, self.rule.env, caller=self.env)
        calls = self.evaluator.calls
        own = {
            name: calls.given(each, given[name], self.env)
            for name, each in self.found.parameters.items()
            if name in given
        }
        missing = calls.fill(local, tuple(self.found.parameters.values()), own)
        if missing:
            names = listed(f"`{each.name.id}`" for each in missing)
            self._fail("MX303", self.expr.span, f"`{self.rule.name}` needs {names}")
        return local

    def _base(self, given: Given) -> r.Recurrence:
        """The recurrence that the call would be but for its equations, and all decays."""
        a = self.found.operands["a"]
        own = [each for each in self.found.operands.values() if each.made == "decay"]
        for each in own:
            name = "decay" if each.name == "a" else each.name
            if each is not a or a.axes == ("value",):
                self.decays[each.name] = self._decay(each, given.pop(name, None))
        named = tuple(
            ast.Argument(argument.span, ast.Name(argument.span, name), argument.value)
            for name, argument in given.items() if name not in self.found.parameters
        )  # fmt: skip
        defaults = {} if "a" in self.decays else {"decay": _default(a)}
        base = self.construction.of(
            self.rule.name, r.Recurrence, self.expr, self.env, named, defaults
        )
        assert isinstance(base, r.Recurrence)
        self.decays.setdefault("a", base.decay)
        return base

    def _decay(self, operand: Operand, argument: ast.Argument | None) -> r.Decay:
        """The decay of an operand of the recurrence's own."""
        if argument is None:
            return _default(operand)
        decay: r.Decay = self.evaluator.evaluate(argument.value, self.env, DECAY)
        self._fits(operand, decay, argument.value.span)
        return decay

    def _fits(self, operand: Operand, decay: r.Decay, span: Span | None) -> None:
        if isinstance(decay, r.NoDecay) or isinstance(decay, r.Vector) == bool(operand.axes):
            return
        name = operand.name
        if operand.axes:
            self._fail("MX302", span, f"`{name}` has a decay per channel", "use vector")
        self._fail(
            "MX302",
            span,
            f"`{name}` is one number per head, and this decay one per channel",
            f"declare it: decay {name}[key]",
        )

    def _shape_of_a(self, base: r.Recurrence) -> None:
        """An `a` that is not declared has the axes that the decay gives it."""
        a = self.found.operands["a"]
        if a.span is None and isinstance(base.decay, r.Vector):
            a = replace(a, axes=("key",))
        elif a.axes != ("value",):
            self._fits(a, base.decay, base.origin.of("decay"))
        operands = {**self.found.operands, "a": a}
        self.found = Declared(self.found.states, operands, self.found.parameters, self.found.places)

    def _refuse_decay(self, given: Given, body: Body) -> None:
        """`decay=` where nothing decays, `dt` without the decay that it is a part of."""
        needed = needed_names(body.lines)
        if "decay" in given and not needed & {"a", "dt"}:
            name = given["decay"].name
            self._fail(
                "MX202",
                given["decay"].span if name is None else name.span,
                f"`{self.rule.name}` has no `a` that a decay could be",
            )
        if "dt" in needed and not (isinstance(self.decays["a"], r.Scalar) and "a" in needed):
            place = given["decay"].span if "decay" in given else self.expr.span
            self._fail(
                "MX302",
                place,
                "`dt` is the step inside a scalar decay `a`",
                "decay by `a` with decay=scalar, or use b",
            )

    # ------------------------------------------------------------------------------- equations

    def _body(self, scope: Env) -> Body:
        def number(name: ast.Name) -> Fraction | None:
            if scope.find(name.id) is None:
                return None
            value = self.evaluator.evaluate(name, scope, ANYTHING)
            if not is_number(value):
                place = self.evaluator.blame(name, scope)
                self._fail(
                    "MX301", place, f"`{name.id}` is {described(value)}, and equations take numbers"
                )
            return Fraction(value)

        checker = Checker(
            self.found, number, self.report, lambda span: self.evaluator.spend(1, span)
        )
        return Reader(self.rule.definition, checker, self.report).body()

    def _made(self, base: r.Recurrence, body: Body, ones: frozenset[str]) -> Term:
        """A point, which must keep the rules of points, or a scan, told of with its reason."""
        try:
            found = point_of(body, ones, lambda: self.evaluator.spend(STEP_COST, self.expr.span))
        except NoPoint as reason:
            name = self.rule.definition.name
            self.report(
                "MX503",
                name.span,
                f"`{name.id}` runs token by token: {reason}",
                help="the space of recurrence(...) runs in chunks, on tensor cores",
            )
            return lower.scan(self.rule.name, base, body, self.decays, ones)
        made = lower.point(base, found, self.decays)
        self.construction.check(made)
        return made


def _default(operand: Operand) -> r.Decay:
    return r.Vector() if operand.axes else r.Scalar()
