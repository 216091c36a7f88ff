"""A walk over whole files for what evaluation may never reach: misspelt names and arguments,
unknown types, parameters given twice, blocks that give nothing, in functions and blocks that no
model uses.

Evaluation reports what is wrong with what it reaches, at the same places. A name passes here when
some place could give it a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from ..diagnostics import Diagnostics
from ..diagnostics.suggest import did_you_mean
from ..source import Span
from ..syntax import ast
from . import registry
from .call import annotation
from .equations import rules as equations
from .expect import fields_of
from .modules import Module, check_name
from .report import Reporter
from .values import BLOCK_PARTS, Env

STREAMS = frozenset({"x", "x0", "norm"})
"""What every block has."""


class Names:
    """Checks one module."""

    def __init__(self, module: Module, diagnostics: Diagnostics) -> None:
        self.diagnostics = diagnostics
        self.env: Env = module.env
        self.base = module.env.visible() | registry.constructors().keys() | registry.words()
        for statement in module.file.statements:
            self._statement(statement)

    # ---------------------------------------------------------------------------- statements

    def _statement(self, statement: ast.Statement) -> None:
        match statement:
            case ast.Let() | ast.MixerDef():
                self._function(statement.parameters or (), statement.value, self.base)
            case ast.BlockDef():
                self._block(statement)
            case ast.RecurrenceDef():
                self._parameters(statement.parameters or (), self.base)
                equations.check(statement, Reporter(self.diagnostics), self.env)
            case ast.Model():
                self._model(statement)
            case _:
                pass

    def _function(
        self, parameters: tuple[ast.Parameter, ...], value: ast.Expr, scope: Set[str]
    ) -> None:
        self._expr(value, self._parameters(parameters, scope))

    def _parameters(self, parameters: tuple[ast.Parameter, ...], scope: Set[str]) -> Set[str]:
        """The scope inside; parameters are checked on the way."""
        if not parameters:
            return scope
        inner = scope | {parameter.name.id for parameter in parameters}
        seen: dict[str, Span] = {}
        for parameter in parameters:
            check_name(parameter.name, seen, self.diagnostics)
            self._parameter(parameter, inner)
        return inner

    def _parameter(self, parameter: ast.Parameter, scope: Set[str]) -> None:
        if parameter.annotation is not None and annotation(parameter) is None:
            name, known = parameter.annotation.id, registry.annotation_names()
            help = did_you_mean(name, known) or f"known: {', '.join(known)}"
            self.diagnostics.add("MX201", parameter.annotation.span, f"unknown type `{name}`",
                                 help=help)
        if parameter.default is not None:
            self._expr(parameter.default, scope)
        if parameter.range is not None:
            self._expr(parameter.range.low, scope)
            self._expr(parameter.range.high, scope)

    def _block(self, block: ast.BlockDef) -> None:
        scope = {*self._parameters(block.parameters, self.base), *STREAMS}
        for line in block.body:
            self._expr(line.value, scope)
            check_name(line.target, {}, self.diagnostics)
            scope.add(line.target.id)
        if all(line.target.id != "x" for line in block.body):
            self.diagnostics.add("MX409", block.name.span,
                                 f"block `{block.name.id}` never changes x",
                                 help="what a layer gives is its x: write x += ...")
        given = [p for p in block.parameters if p.name.id in BLOCK_PARTS]
        for parameter in given:
            if parameter.default is not None:
                self.diagnostics.add("MX301", parameter.default.span,
                                     f"`{parameter.name.id}` of a block comes from the layer",
                                     help="leave the default out")

    def _model(self, model: ast.Model) -> None:
        names = {item.name.id for item in model.items if isinstance(item, ast.Let)}
        names |= {item.parameter.name.id for item in model.items if isinstance(item, ast.Param)}
        scope = self.base | names
        for item in model.items:
            match item:
                case ast.Let():
                    self._function(item.parameters or (), item.value, scope)
                case ast.Param():
                    self._parameter(item.parameter, scope)
                case ast.Field():
                    self._expr(item.value, scope)
                case ast.Override():
                    self._override(item, scope)

    def _override(self, item: ast.Override, scope: Set[str]) -> None:
        self._expr(item.value, scope)
        for index in item.indices:
            for part in _parts(index):
                self._expr(part, scope)

    # --------------------------------------------------------------------------- expressions

    def _expr(self, expr: ast.Expr, scope: Set[str]) -> None:
        match expr:
            case ast.Name():
                self._name(expr, scope)
            case ast.ListExpr():
                for item in expr.items:
                    self._expr(item, scope)
            case ast.Binary():
                self._chain(expr, scope)
            case ast.Unary():
                self._expr(expr.operand, scope)
            case ast.Call():
                self._call(expr, scope)
            case _:
                pass

    def _name(self, name: ast.Name, scope: Set[str]) -> None:
        if name.id not in scope:
            self.diagnostics.add("MX201", name.span, f"unknown name `{name.id}`",
                                 help=lambda: did_you_mean(name.id, scope))

    def _chain(self, expr: ast.Binary, scope: Set[str]) -> None:
        """`a + b + c` leans to the left, without a bound on its length."""
        left: ast.Expr = expr
        while isinstance(left, ast.Binary):
            self._expr(left.right, scope)
            left = left.left
        self._expr(left, scope)

    def _call(self, expr: ast.Call, scope: Set[str]) -> None:
        self._expr(expr.function, scope)
        for argument in expr.arguments:
            self._expr(argument.value, scope)
        if isinstance(expr.function, ast.Name) and self.env.find(expr.function.id) is None:
            self._arguments(expr.function.id, expr.arguments)

    def _arguments(self, word: str, arguments: Iterable[ast.Argument]) -> None:
        """Named arguments of a provided constructor: known to one of its meanings."""
        terms = registry.constructors().get(word, {}).values()
        known = {name for term in terms for name in fields_of(term)}
        for argument in arguments:
            if known and argument.name is not None and argument.name.id not in known:
                name = argument.name.id
                self.diagnostics.add(
                    "MX202", argument.name.span, f"`{word}` has no argument `{name}`",
                    help=did_you_mean(name, known) or f"it takes {', '.join(sorted(known))}",
                )


def _parts(index: ast.Expr | ast.Slice) -> list[ast.Expr]:
    if not isinstance(index, ast.Slice):
        return [index]
    return [part for part in (index.start, index.stop, index.step) if part is not None]
