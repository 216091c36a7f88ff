"""Calls: constructors of terms, functions and blocks of the spec, and ops on streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..diagnostics import Note
from ..diagnostics.suggest import did_you_mean
from ..primitives import Op, Term
from ..primitives import combine as c
from ..primitives.base import Origin
from ..primitives.pointwise import Pointwise
from ..source import Span
from ..syntax import ast
from . import registry
from .expect import ANYTHING, Expect, fields_of, of_name, variadic
from .report import provided
from .values import BlockValue, Closure, Constructors, Env, Failed, RecurrenceRule, Stream, Thunk

if TYPE_CHECKING:
    from .evaluate import Evaluator

STREAM_KINDS = ("norm", "pointwise", "ffn", "mixer")
BLOCK_PARTS = ("mixer", "ffn", "norm")


class Calls:
    """The part of the evaluator that calls things."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._active: list[Closure] = []
        self._identities: dict[tuple[int, int], tuple[int, object]] = {}

    # ------------------------------------------------------------------------------- dispatch

    def call(self, expr: ast.Call, env: Env, expect: Expect) -> Any:
        callee = self._callee(expr, env, expect)
        match callee:
            case Constructors():
                return self._construct_or_apply(callee, expr, env, expect)
            case Closure():
                return self._function(callee, expr, env, expect)
            case BlockValue():
                return self._block(callee, expr, env)
            case RecurrenceRule():
                return callee
            case Term() if isinstance(callee, Op | c.Combination | c.Tied | c.NoTerm):
                return self._apply(callee, expr, env)
        return self.evaluator.fail(
            "MX311", expr.function.span,
            f"`{expr.function.span.text[:40]}` is {self.evaluator.article(callee)} and cannot "
            "be called",
        )

    def _callee(self, expr: ast.Call, env: Env, expect: Expect) -> Any:
        """What is called: the file's own definition where it can be called, else a provided one."""
        name = expr.function
        if not isinstance(name, ast.Name):
            return self.evaluator.raw(name, env, ANYTHING)
        bound = env.find(name.id)
        made = registry.constructors().get(name.id)
        if bound is not None:
            value = self.evaluator.force(bound, ANYTHING, name.span)
            callable_ = isinstance(value, Closure | Constructors | RecurrenceRule | Term)
            if callable_ or made is None:
                return value
        if made is None:
            return self.evaluator.unknown(name, env, ANYTHING)
        fitting = {kind: term for kind, term in made.items() if kind in expect.kinds}
        return Constructors(name.id, fitting or made)

    # --------------------------------------------------------------------------- constructors

    def bare(self, value: Constructors, expect: Expect, expr: ast.Expr) -> Any:
        """A constructor named without a call: its term with all defaults, if it has them."""
        fitting = [kind for kind in registry.PREFERENCE if kind in value.by_kind]
        fitting += [kind for kind in value.by_kind if kind not in fitting]
        kind = next((k for k in fitting if k in expect.kinds), None)
        if kind is None:
            return value
        call = ast.Call(expr.span, expr, ())
        return self._construct(value.word, value.by_kind[kind], call, Env({}), [])

    def _construct_or_apply(
        self, callee: Constructors, expr: ast.Call, env: Env, expect: Expect
    ) -> Any:
        """A term; or inside a block, where the first arguments are streams, what it makes of
        them."""
        if self.evaluator.builder is not None and any(a.name is None for a in expr.arguments):
            op = next((callee.by_kind[k] for k in STREAM_KINDS if k in callee.by_kind), None)
            streams = self._leading_streams(expr, env) if op is not None else []
            if op is not None and streams:
                rest = expr.arguments[len(streams) :]
                term = self._construct(callee.word, op, expr, env, list(rest))
                return self._emit(term, streams, expr)
        kinds = [k for k in registry.PREFERENCE if k in callee.by_kind] or [*callee.by_kind]
        kind = next((k for k in kinds if k in expect.kinds), kinds[0])
        return self._construct(
            callee.word, callee.by_kind[kind], expr, env, list(expr.arguments)
        )

    def _leading_streams(self, expr: ast.Call, env: Env) -> list[Any]:
        """The values of the first positional arguments, as long as they are streams."""
        streams: list[Any] = []
        for argument in expr.arguments:
            if argument.name is not None or isinstance(argument.value, ast.Number):
                break
            value = self.evaluator.evaluate(argument.value, env)
            if not isinstance(value, Stream | c.NoTerm):
                break
            streams.append(value)
        return streams

    def _construct(
        self, word: str, term: type[Term], expr: ast.Call, env: Env, given: list[ast.Argument]
    ) -> Term:
        """A term from its arguments, all of them looked at even where some are wrong."""
        fields = fields_of(term)
        values: dict[str, Any] = registry.preset(word, term)
        spans: dict[str, Span] = {}
        failed = False
        for name, argument in self._places(word, term, fields, given):
            if name is None:
                failed = True
                continue
            try:
                values[name] = self._argument(argument, fields[name], env)
            except Failed:
                failed = True
            spans[name] = self._blame(argument, env, expr)
        failed |= self._missing(word, term, fields, values, spans, expr)
        if failed:
            raise Failed
        if term is c.Tied:
            values["identity"] = self._identity(expr, env)
        return self._validated(word, term, values, Origin(self._place(expr), spans))

    def _places(
        self,
        word: str,
        term: type[Term],
        fields: Mapping[str, Expect],
        given: list[ast.Argument],
    ) -> list[tuple[str | None, ast.Argument | list[ast.Argument]]]:
        """Which field each argument goes to; None for one that has been refused."""
        if variadic(term):
            gathered = [a for a in given if a.name is None]
            given = [a for a in given if a.name is not None]
            first: list[tuple[str | None, Any]] = [("parts", gathered)]
            order = [name for name in fields if name != "parts"]
        else:
            first, order = [], [name for name in fields if name not in registry.preset(word, term)]
        return first + self.match(f"`{word}`", order, given)

    def match(
        self, what: str, order: list[str], given: list[ast.Argument] | tuple[ast.Argument, ...]
    ) -> list[tuple[str | None, ast.Argument]]:
        """Arguments to names: positional ones in order, then named ones."""
        fail = self.evaluator.report
        places: list[tuple[str | None, ast.Argument]] = []
        taken: set[str] = set()
        position = 0
        for argument in given:
            name: str | None
            if argument.name is None:
                name = order[position] if position < len(order) else None
                position += 1
                if name is None:
                    count = f"{len(order)} argument{'s' if len(order) != 1 else ''}"
                    fail("MX304", argument.span, f"{what} takes at most {count}",
                         help=f"it takes {', '.join(order)}" if order else None)
            else:
                name = argument.name.id
                if name not in order:
                    names = ", ".join(order) or "no arguments"
                    help = did_you_mean(name, order) or f"it takes {names}"
                    fail("MX202", argument.name.span, f"{what} has no argument `{name}`",
                         help=help)
                    name = None
            if name is not None and name in taken:
                fail("MX305", argument.span, f"{what} is given `{name}` twice")
                name = None
            taken.add(name or "")
            places.append((name, argument))
        return places

    def _argument(
        self, argument: ast.Argument | list[ast.Argument], expect: Expect, env: Env
    ) -> Any:
        if isinstance(argument, ast.Argument):
            value = self.evaluator.evaluate(argument.value, env, expect)
            return as_python(value, expect)
        values, failed = [], False
        for part in argument:
            try:
                values.append(self.evaluator.evaluate(part.value, env, expect.item or ANYTHING))
            except Failed:
                failed = True
        if failed:
            raise Failed
        return tuple(values)

    def _blame(
        self, argument: ast.Argument | list[ast.Argument], env: Env, expr: ast.Call
    ) -> Span:
        if isinstance(argument, ast.Argument):
            return self.evaluator.blame(argument.value, env)
        return argument[0].span.to(argument[-1].span) if argument else expr.span

    def _missing(
        self,
        word: str,
        term: type[Term],
        fields: Mapping[str, Expect],
        values: Mapping[str, Any],
        spans: Mapping[str, Span],
        expr: ast.Call,
    ) -> bool:
        required = [
            name
            for name in fields
            if term.model_fields[name].is_required() and name not in values and name not in spans
        ]
        for name in required:
            expected = fields[name].describe()
            self.evaluator.report("MX303", expr.span, f"`{word}` needs `{name}` ({expected})",
                                  help=f"{name}: {term.model_fields[name].description}")
        return bool(required)

    def _validated(
        self, word: str, term: type[Term], values: dict[str, Any], origin: Origin
    ) -> Term:
        try:
            made = term(**values, origin=origin)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                name = str(problem["loc"][0])
                self.evaluator.report(
                    "MX302", origin.of(name), f"`{name}` of `{word}` {bound_text(problem)}"
                )
            raise Failed from None
        made.check(self.evaluator.report)
        return made

    def _identity(self, expr: ast.Call, env: Env) -> int:
        """One number for each evaluation of a `tied(...)`: the same place in the same scope."""
        key = (id(expr), id(env))
        if key not in self._identities:
            # The scope is held so that its id is not used again.
            self._identities[key] = (len(self._identities) + 1, env)
        return self._identities[key][0]

    def _place(self, expr: ast.Call) -> Span:
        """Where a term came from, for people: inside a provided mixer, the call of it."""
        calls = self.evaluator.report.calls
        if provided(expr.span):
            return next((call for call in reversed(calls) if not provided(call)), expr.span)
        return expr.span

    # ------------------------------------------------------------------- functions and blocks

    def _function(self, callee: Closure, expr: ast.Call, env: Env, expect: Expect) -> Any:
        if callee in self._active:
            self.evaluator.fail("MX206", expr.span, f"`{callee.name}` calls itself",
                                notes=(Note("the definition", callee.span),))
        local = self.bind(callee.name, callee.parameters, callee.env, expr, env)
        self._active.append(callee)
        self.evaluator.report.calls.append(expr.span)
        try:
            value = self.evaluator.raw(callee.body, local, expect)
            if provided(callee.span) or isinstance(value, Term):
                value = self._named(value, callee)
            return value
        finally:
            self._active.pop()
            self.evaluator.report.calls.pop()

    def _named(self, value: Any, callee: Closure) -> Any:
        if not isinstance(value, Term) or isinstance(value, BlockValue) or value.origin.label:
            return value
        origin = value.origin
        return value.replace(origin=Origin(origin.span, origin.fields, callee.name))

    def bind(
        self,
        name: str,
        parameters: tuple[ast.Parameter, ...],
        scope: Env,
        expr: ast.Call,
        env: Env,
    ) -> Env:
        """The scope of a call: each parameter an argument, or its default."""
        local = Env({}, scope)
        order = [parameter.name.id for parameter in parameters]
        places = dict(self.match(f"`{name}`", order, expr.arguments))
        failed = None in places
        for parameter in parameters:
            key = parameter.name.id
            annotation = self.annotation(parameter)
            argument = places.get(key)
            if argument is not None:
                local.names[key] = Thunk(argument.value, env, None, True, annotation,
                                         parameter.range, span=argument.span)
            elif parameter.default is not None:
                local.names[key] = Thunk(parameter.default, local, None, True, annotation,
                                         parameter.range, span=parameter.span)
            else:
                self.evaluator.report("MX303", expr.span, f"`{name}` needs `{key}`",
                                      notes=(Note("the parameter", parameter.span),))
                failed = True
        if failed:
            raise Failed
        return local

    def annotation(self, parameter: ast.Parameter) -> Expect | None:
        """What the annotation of a parameter expects, reported where it is unknown."""
        if parameter.annotation is None:
            return None
        name = parameter.annotation.id
        expect = of_name(name, registry.kinds())
        if expect is None:
            known = registry.annotations()
            self.evaluator.report("MX201", parameter.annotation.span, f"unknown type `{name}`",
                                  help=did_you_mean(name, known) or f"known: {', '.join(known)}")
        return expect

    def _block(self, callee: BlockValue, expr: ast.Call, env: Env) -> BlockValue:
        """A block with values for its further parameters: scaled(alpha=0.22)."""
        further = [p.name.id for p in callee.definition.parameters if p.name.id not in BLOCK_PARTS]
        given = dict(callee.given)
        failed = False
        for name, argument in self.match(f"`{callee.definition.name.id}`", further, expr.arguments):
            if name is None:
                failed = True
            else:
                given[name] = Thunk(argument.value, env, None, True, span=argument.span)
        if failed:
            raise Failed
        return BlockValue(definition=callee.definition, env=callee.env, given=given,
                          origin=callee.origin)

    # -------------------------------------------------------------------------------- streams

    def _apply(self, term: Term, expr: ast.Call, env: Env) -> Any:
        """mixer(norm(x)) inside a block."""
        streams = self._leading_streams(expr, env)
        if len(streams) != len(expr.arguments) or not streams:
            kind = self.evaluator.article(term)
            self.evaluator.fail("MX301", expr.span, f"{kind} is applied to streams of a block",
                                help="to give arguments, call the function that makes it")
        return self._emit(term, streams, expr)

    def _emit(self, term: Term, streams: list[Any], expr: ast.Call) -> Any:
        builder = self.evaluator.builder
        if builder is None:
            return self.evaluator.fail("MX301", expr.span, "streams exist inside blocks alone")
        many = isinstance(term, Pointwise) and term.word == "concat"
        if len(streams) > 1 and not many:
            self.evaluator.fail("MX304", expr.span, f"`{expr.function.span.text[:40]}` takes one "
                                f"stream, not {len(streams)}")
        return builder.apply(term, streams, expr.span)


def as_python(value: Any, expect: Expect) -> Any:
    """Exact numbers as the field's own type."""
    if expect.number is not None and value is not None:
        return expect.number(value)
    if expect.item is not None and expect.item.number is not None and value is not None:
        return tuple(expect.item.number(item) for item in value)
    return value


BOUNDS: dict[str, Callable[[Any], str]] = {
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']}",
    "greater_than": lambda ctx: f"must be above {ctx['gt']}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']}",
    "less_than": lambda ctx: f"must be below {ctx['lt']}",
}


def bound_text(problem: Any) -> str:
    """What a pydantic error says, as mixerlang says it."""
    rule = BOUNDS.get(problem["type"])
    text = rule(problem.get("ctx", {})) if rule else problem["msg"].lower()
    value = problem.get("input")
    shown = value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value
    return f"{text}, not {shown}"
