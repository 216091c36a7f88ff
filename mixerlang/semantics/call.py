"""Calls: provided constructors, functions and blocks of the spec, and ops on streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..diagnostics import Note
from ..primitives import Op, Term
from ..primitives import combine as c
from ..primitives import pointwise as p
from ..primitives.base import Origin
from ..source import Span
from ..syntax import ast
from . import registry
from .arguments import match
from .construct import Construction
from .equations.rules import Rules
from .expect import ANYTHING, Expect, of_name
from .report import listed
from .values import (
    BlockValue,
    Closure,
    Constructors,
    Env,
    Failed,
    RecurrenceRule,
    Stream,
    Thunk,
    described,
)

if TYPE_CHECKING:
    from .evaluate import Evaluator

STREAM_KINDS = ("norm", "pointwise", "ffn", "mixer")


class Calls:
    """The part of the evaluator that calls things."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._construction = Construction(evaluator)
        self._rules = Rules(evaluator, self._construction)
        self._recursive: set[Closure] = set()

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
                return self._rules.call(callee, expr, env)
            case Term() if isinstance(callee, Op | c.Combination | c.Tied | c.NoTerm):
                return self._apply(callee, expr, env)
        return self.evaluator.fail(
            "MX311", expr.function.span,
            f"`{expr.function.span.text[:40]}` is {described(callee)} and cannot "
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
            return self.evaluator.name(name, env, ANYTHING)
        fitting = {kind: term for kind, term in made.items() if kind in expect.kinds}
        return Constructors(name.id, fitting or made)

    # --------------------------------------------------------------------------- constructors

    def bare(self, value: Constructors, expect: Expect, expr: ast.Expr) -> Any:
        """A constructor named without a call: its term with all defaults, where it fits."""
        if not expect.kinds & value.by_kind.keys():
            return value
        return self._construction.term(value, ast.Call(expr.span, expr, ()), Env({}), expect, ())

    def _construct_or_apply(
        self, callee: Constructors, expr: ast.Call, env: Env, expect: Expect
    ) -> Any:
        """A term; or inside a block, where the first arguments are streams, what it makes of
        them."""
        op = self._stream_op(callee)
        if op is not None:
            streams = self._leading_streams(expr, env)
            if streams:
                rest = expr.arguments[len(streams) :]
                term = self._construction.of(callee.word, op, expr, env, rest)
                return self._emit(term, streams, expr)
        return self._construction.term(callee, expr, env, expect, expr.arguments)

    def _stream_op(self, callee: Constructors) -> type[Term] | None:
        """What a name means when it is applied to streams."""
        if self.evaluator.builder is None:
            return None
        terms = (callee.by_kind[kind] for kind in STREAM_KINDS if kind in callee.by_kind)
        return next((term for term in terms if issubclass(term, Op)), None)

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

    # ------------------------------------------------------------------- functions and blocks

    def _function(self, callee: Closure, expr: ast.Call, env: Env, expect: Expect) -> Any:
        self._refuse_recursion(callee, expr, env)
        local = self._scope(callee, expr, env)
        self.evaluator.report.calls.append(expr.span)
        try:
            value = self.evaluator.raw(callee.body, local, expect)
        finally:
            self.evaluator.report.calls.pop()
        if not isinstance(value, Term) or isinstance(value, BlockValue) or value.origin.label:
            return value
        return value.replace(origin=Origin(value.origin.span, value.origin.fields, callee.name))

    def _refuse_recursion(self, callee: Closure, expr: ast.Call, env: Env) -> None:
        """A cycle of functions is told once, wherever it is entered."""
        if callee in self._recursive:
            raise Failed
        if env.inside(callee):
            caller: Env | None = env
            while caller is not None and caller.callee is not None:
                self._recursive.add(caller.callee)
                caller = None if caller.callee is callee else caller.caller
            self.evaluator.fail("MX206", expr.span, f"`{callee.name}` calls itself",
                                notes=(Note("the definition", callee.span),))

    def _scope(self, callee: Closure, expr: ast.Call, env: Env) -> Env:
        """The scope of a call: each parameter an argument, or its default."""
        local = Env({}, callee.env, callee, env)
        order = [parameter.name.id for parameter in callee.parameters]
        report = self.evaluator.report
        places = match(report, f"`{callee.name}`", order, expr.arguments)
        given = {name: self.given(callee.parameters[order.index(name)], argument, env)
                 for name, argument in places if name is not None}
        missing = self.fill(local, callee.parameters, given)
        refused = len(given) < len(places)
        if missing and not refused:
            names = listed(f"`{parameter.name.id}`" for parameter in missing)
            notes = tuple(Note("the parameter", parameter.span) for parameter in missing)
            report("MX303", expr.span, f"`{callee.name}` needs {names}", notes=notes)
        if missing or refused:
            raise Failed
        return local

    def given(self, parameter: ast.Parameter, argument: ast.Argument, env: Env) -> Thunk:
        return Thunk(argument.value, env, argument=True, annotation=annotation(parameter),
                     range=parameter.range, span=argument.span)

    def fill(
        self, local: Env, parameters: tuple[ast.Parameter, ...], given: dict[str, Thunk]
    ) -> list[ast.Parameter]:
        """Bind parameters to what is given or their defaults; those that have neither."""
        missing = []
        for parameter in parameters:
            name = parameter.name.id
            if name in given:
                local.names[name] = given[name]
            elif parameter.default is not None:
                local.names[name] = Thunk(
                    parameter.default, local, argument=True, annotation=annotation(parameter),
                    range=parameter.range, span=parameter.span)
            else:
                missing.append(parameter)
        return missing

    def _block(self, callee: BlockValue, expr: ast.Call, env: Env) -> BlockValue:
        """A block with values for its further parameters: scaled(alpha=0.22)."""
        further = {parameter.name.id: parameter for parameter in callee.further}
        what = f"`{callee.definition.name.id}`"
        places = match(self.evaluator.report, what, [*further], expr.arguments)
        if any(name is None for name, _ in places):
            raise Failed
        given = {name: self.given(further[name], argument, env) for name, argument in places
                 if name is not None}
        return callee.replace(given={**callee.given, **given})

    # -------------------------------------------------------------------------------- streams

    def _apply(self, term: Term, expr: ast.Call, env: Env) -> Any:
        """mixer(norm(x)) inside a block."""
        streams = self._leading_streams(expr, env)
        if len(streams) != len(expr.arguments) or not streams:
            kind = described(term)
            self.evaluator.fail("MX301", expr.span, f"{kind} is applied to streams of a block",
                                help="to give arguments, call the function that makes it")
        return self._emit(term, streams, expr)

    def _emit(self, term: Term, streams: list[Any], expr: ast.Call) -> Any:
        builder = self.evaluator.builder
        name = expr.function.span.text[:40]
        if builder is None:
            return self._no_builder(expr.span)
        if isinstance(term, c.Tied) and isinstance(term.value, c.Layer):
            self.evaluator.fail("MX311", expr.function.span, f"`{name}` is a layer and cannot be "
                                "called")
        if len(streams) > 1 and not isinstance(term, p.Concat):
            self.evaluator.fail("MX304", expr.span, f"`{name}` takes one stream, not "
                                f"{len(streams)}")
        return builder.apply(term, streams, expr.span)

    def _no_builder(self, span: Span) -> Any:
        return self.evaluator.fail("MX301", span, "streams exist inside blocks alone")


def annotation(parameter: ast.Parameter) -> Expect | None:
    """What the annotation of a parameter expects; unknown ones are reported by names.py."""
    if parameter.annotation is None:
        return None
    return of_name(parameter.annotation.id, registry.kinds())
