"""Constructors: terms from their arguments, checked field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from ..primitives import Term
from ..primitives import combine as c
from ..primitives.base import Origin
from ..source import Span
from ..syntax import ast
from . import registry
from .arguments import match
from .expect import ANYTHING, Expect, fields_of, variadic
from .report import Reporter, listed, provided
from .values import BROKEN, Constructors, Env, Failed

if TYPE_CHECKING:
    from .evaluate import Evaluator

TERM_COST = 3
"""What making a term costs, in steps of evaluation."""

NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})

T = TypeVar("T", bound=Term)
Given = ast.Argument | list[ast.Argument]
"""One argument, or those that a list of parts gathers."""


class Construction:
    """Makes terms of the calls of provided names."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._identities: dict[tuple[int, int], tuple[int, object]] = {}

    def term(
        self, made: Constructors, expr: ast.Call, env: Env, expect: Expect,
        given: tuple[ast.Argument, ...],
    ) -> Term:
        """The term that a name makes where `expect` is expected."""
        return self.of(made.word, made.by_kind[_kind(made, expect, given)], expr, env, given)

    def of(
        self, word: str, term: type[Term], expr: ast.Call, env: Env,
        given: tuple[ast.Argument, ...], defaults: Mapping[str, Any] = NO_DEFAULTS,
    ) -> Term:
        """A term from its arguments, all of them looked at even where some are wrong.

        defaults: of fields that have others here than by themselves."""
        self.evaluator.spend(TERM_COST, expr.span)
        fields = fields_of(term)
        values: dict[str, Any] = {**defaults, **registry.preset(word, term)}
        spans: dict[str, Span] = {}
        failed = refused = False
        for name, argument in self._places(word, term, fields, given):
            if name is None:
                refused = True
                continue
            spans[name] = self._blame(argument, env, expr)
            try:
                values[name] = self._argument(argument, fields[name], env)
            except Failed:
                failed = True
        if not refused:
            failed |= self._missing(word, term, fields, values.keys() | spans.keys(), expr)
        if term is c.Tied:
            values["identity"] = self._identity(expr, env)
        origin = Origin(self._place(expr), spans)
        made = validated(term, values, origin, self.evaluator.report, f" of `{word}`")
        if made is None or failed or refused:
            raise Failed
        self.check(made)
        return made

    def _places(
        self,
        word: str,
        term: type[Term],
        fields: Mapping[str, Expect],
        given: tuple[ast.Argument, ...],
    ) -> list[tuple[str | None, Given]]:
        """Which field each argument goes to; None for one that has been refused."""
        first: list[tuple[str | None, Given]] = []
        order = [name for name in fields if name not in registry.preset(word, term)]
        if variadic(term):
            first = [("parts", [a for a in given if a.name is None])]
            given = tuple(a for a in given if a.name is not None)
            order.remove("parts")
        return [*first, *match(self.evaluator.report, f"`{word}`", order, given)]

    def _argument(self, argument: Given, expect: Expect, env: Env) -> Any:
        if isinstance(argument, ast.Argument):
            value = self.evaluator.evaluate(argument.value, env, expect)
        else:
            parts = tuple(part.value for part in argument)
            value = self.evaluator.items(parts, env, expect.item or ANYTHING)
        if isinstance(value, tuple) and any(item is BROKEN for item in value):
            raise Failed
        return as_python(value, expect)

    def _blame(self, argument: Given, env: Env, expr: ast.Call) -> Span:
        """The place of an argument, for people: inside a provided mixer, the call of it."""
        if isinstance(argument, ast.Argument):
            span = self.evaluator.blame(argument.value, env)
            return self._place(expr) if provided(span) else span
        if not argument or provided(expr.span):
            return self._place(expr)
        return argument[0].span.to(argument[-1].span)

    def _place(self, expr: ast.Call) -> Span:
        """Where a term came from, for people: inside a provided mixer, the call of it."""
        return self.evaluator.report.place(expr.span)

    def _missing(
        self, word: str, term: type[Term], fields: Mapping[str, Expect], given: set[str],
        expr: ast.Call,
    ) -> bool:
        missing = [
            name for name in fields if term.model_fields[name].is_required() and name not in given
        ]
        if missing:
            needs = listed(f"`{name}` ({fields[name].describe()})" for name in missing)
            help = " ".join(f"{name}: {term.model_fields[name].description}" for name in missing)
            self.evaluator.report("MX303", expr.span, f"`{word}` needs {needs}", help=help)
        return bool(missing)

    def check(self, made: Term) -> None:
        """A term that breaks a rule goes no further, so that all others may rely on the rules."""
        broken = False

        def report(code: str, span: Span | None, message: str, *, help: str | None = None) -> None:
            nonlocal broken
            broken = True
            self.evaluator.report(code, span, message, help=help)

        made.check(report)
        if broken:
            raise Failed

    def _identity(self, expr: ast.Call, env: Env) -> int:
        """One number for each evaluation of a `tied(...)`: the same place in the same scope."""
        key = (id(expr), id(env))
        if key not in self._identities:
            # The scope is held so that its id is not used again.
            self._identities[key] = (len(self._identities) + 1, env)
        return self._identities[key][0]


def _kind(made: Constructors, expect: Expect, given: tuple[ast.Argument, ...]) -> str:
    """The meaning of a name: the expected kind, else one that has the named arguments."""
    ranked = registry.ranked(made.by_kind)
    named = {argument.name.id for argument in given if argument.name is not None}
    taking = (kind for kind in ranked if named <= fields_of(made.by_kind[kind]).keys())
    return next((kind for kind in ranked if kind in expect.kinds), None) or next(taking, ranked[0])


def validated(
    term: type[T], values: Mapping[str, Any], origin: Origin, report: Reporter, what: str = ""
) -> T | None:
    """A term, if its fields lie in their bounds. Missing fields have been reported."""
    try:
        return term(**values, origin=origin)
    except ValidationError as error:
        found = [problem for problem in error.errors(include_url=False)
                 if problem["type"] != "missing"]
        # What is derived from a value that is wrong itself needs no word.
        own = [problem for problem in found if origin.of(_field(problem)) is not origin.span]
        for problem in own or found:
            name = _field(problem)
            report("MX302", origin.of(name), f"`{name}`{what} {bound_text(problem)}")
        return None


def _field(problem: Any) -> str:
    return str(problem["loc"][0])


def as_python(value: Any, expect: Expect) -> Any:
    """Exact numbers as the field's own type."""
    if expect.number is not None and value is not None:
        return expect.number(value)
    if expect.item is not None and expect.item.number is not None and value is not None:
        return tuple(expect.item.number(item) for item in value)
    return value


BOUNDS: dict[str, Callable[[Any], str]] = {
    "greater_than_equal": lambda ctx: f"must be at least {shown(ctx['ge'])}",
    "greater_than": lambda ctx: f"must be above {shown(ctx['gt'])}",
    "less_than_equal": lambda ctx: f"must be at most {shown(ctx['le'])}",
    "less_than": lambda ctx: f"must be below {shown(ctx['lt'])}",
}


def bound_text(problem: Any) -> str:
    """What a pydantic error says, as mixerlang says it."""
    rule = BOUNDS.get(problem["type"])
    text = rule(problem.get("ctx", {})) if rule else problem["msg"].lower()
    return f"{text}, not {shown(problem.get('input'))}"


def shown(value: Any) -> str:
    """A number as a spec writes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}".replace(",", "_") if isinstance(value, int) else str(value)
