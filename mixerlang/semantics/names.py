"""A walk over whole files for unknown names, also in what no model uses.

Evaluation reports what is wrong with what it reaches; this finds misspelt names in the rest:
functions never called, blocks never used. A name passes when some place could give it a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..diagnostics import Diagnostics
from ..diagnostics.suggest import did_you_mean
from ..syntax import ast
from . import registry
from .call import BLOCK_PARTS
from .expect import fields_of
from .modules import Module

BLOCK_NAMES = frozenset({"x", "x0", "norm", *BLOCK_PARTS})


class Names:
    """Checks one module."""

    def __init__(self, module: Module, diagnostics: Diagnostics) -> None:
        self.diagnostics = diagnostics
        self.provided = registry.constructors().keys() | registry.words()
        self.base = frozenset(module.env.visible())
        for statement in module.file.statements:
            self._statement(statement)

    def _statement(self, statement: ast.Statement) -> None:
        match statement:
            case ast.Let() | ast.MixerDef():
                self._function(statement.parameters or (), statement.value, self.base)
            case ast.BlockDef():
                self._block(statement)
            case ast.Model():
                self._model(statement)
            case _:
                pass

    def _function(
        self, parameters: Iterable[ast.Parameter], value: ast.Expr, scope: frozenset[str]
    ) -> None:
        inner = self._parameters(parameters, scope)
        self._expr(value, inner)

    def _parameters(
        self, parameters: Iterable[ast.Parameter], scope: frozenset[str]
    ) -> frozenset[str]:
        parameters = tuple(parameters)
        inner = scope | {parameter.name.id for parameter in parameters}
        for parameter in parameters:
            if parameter.default is not None:
                self._expr(parameter.default, inner)
        return inner

    def _block(self, block: ast.BlockDef) -> None:
        scope = self._parameters(block.parameters, self.base | BLOCK_NAMES)
        for line in block.body:
            self._expr(line.value, scope)
            scope |= {line.target.id}

    def _model(self, model: ast.Model) -> None:
        scope = self.base
        for item in model.items:
            if isinstance(item, ast.Param):
                scope |= {item.parameter.name.id}
            elif isinstance(item, ast.Let):
                scope |= {item.name.id}
        for item in model.items:
            if isinstance(item, ast.Let):
                self._function(item.parameters or (), item.value, scope)

    def _expr(self, expr: ast.Expr, scope: frozenset[str]) -> None:
        match expr:
            case ast.Name():
                if expr.id not in scope and expr.id not in self.provided:
                    help = did_you_mean(expr.id, scope | self.provided)
                    self.diagnostics.add("MX201", expr.span, f"unknown name `{expr.id}`", help=help)
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

    def _chain(self, expr: ast.Binary, scope: frozenset[str]) -> None:
        left: ast.Expr = expr
        while isinstance(left, ast.Binary):
            self._expr(left.right, scope)
            left = left.left
        self._expr(left, scope)

    def _call(self, expr: ast.Call, scope: frozenset[str]) -> None:
        self._expr(expr.function, scope)
        for argument in expr.arguments:
            self._expr(argument.value, scope)
        if not isinstance(expr.function, ast.Name) or expr.function.id in scope:
            return
        terms = registry.constructors().get(expr.function.id, {}).values()
        known = {name for term in terms for name in fields_of(term)}
        for argument in expr.arguments:
            if known and argument.name is not None and argument.name.id not in known:
                name = argument.name.id
                help = did_you_mean(name, known) or f"it takes {', '.join(sorted(known))}"
                self.diagnostics.add(
                    "MX202", argument.name.span,
                    f"`{expr.function.id}` has no argument `{name}`", help=help,
                )
