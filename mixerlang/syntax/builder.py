"""The nodes of the AST, one method per rule of the grammar.

A method gets the span of the rule's text and the parts that the rule keeps: nodes, tokens (the
names and operators), tuples, and None for what is absent.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TypeVar

from ..diagnostics import Diagnostics
from ..source import Source, Span
from . import ast
from .table import load
from .tokens import Token, quote

INTEGER_LIMIT = 2**63
DIGITS = 64
"""A literal may have this many digits ..."""
EXPONENT = 308
"""... and an exponent of at most this size, the range of a double."""

ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}
LITERAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")

T = TypeVar("T")
Rule = ast.State | ast.Operand | ast.Assign


class Builder:
    def __init__(self, source: Source, diagnostics: Diagnostics) -> None:
        self.source = source
        self.diagnostics = diagnostics

    # --- statements ---------------------------------------------------------------------------

    def file(self, span: Span, *statements: ast.Statement | None) -> ast.File:
        return ast.File(Span(self.source, 0, len(self.source.text)), _whole(statements))

    def broken(self, span: Span, *parts: object) -> None:
        """What could not be read was reported; the tree leaves it out."""

    def import_(self, span: Span, path: Token) -> ast.Import:
        return ast.Import(span, self.string(self._span(path), path))

    def let(
        self,
        span: Span,
        name: Token,
        parameters: tuple[ast.Parameter, ...] | None,
        value: ast.Expr,
    ) -> ast.Let:
        return ast.Let(span, self._name(name), parameters, value)

    def mixer(
        self,
        span: Span,
        name: Token,
        parameters: tuple[ast.Parameter, ...] | None,
        value: ast.Expr,
    ) -> ast.MixerDef:
        return ast.MixerDef(span, self._name(name), parameters, value)

    def block(
        self,
        span: Span,
        name: Token,
        parameters: tuple[ast.Parameter, ...],
        body: tuple[ast.Assign, ...],
    ) -> ast.BlockDef:
        return ast.BlockDef(span, self._name(name), parameters, body)

    def recurrence(
        self,
        span: Span,
        name: Token,
        parameters: tuple[ast.Parameter, ...] | None,
        body: tuple[Rule, ...],
    ) -> ast.RecurrenceDef:
        return ast.RecurrenceDef(span, self._name(name), parameters, body)

    def model(self, span: Span, name: Token, items: tuple[ast.ModelItem, ...]) -> ast.Model:
        return ast.Model(span, self._name(name), items)

    def lines(self, span: Span, *lines: ast.Assign | None) -> tuple[ast.Assign, ...]:
        return _whole(lines)

    def rules(self, span: Span, *rules: Rule | None) -> tuple[Rule, ...]:
        return _whole(rules)

    def items(self, span: Span, *items: ast.ModelItem | None) -> tuple[ast.ModelItem, ...]:
        return _whole(items)

    def assign(self, span: Span, target: Token, op: Token, value: ast.Expr) -> ast.Assign:
        return ast.Assign(span, self._name(target), self._op(op), value)

    def state(self, span: Span, name: Token, *axes: Token) -> ast.State:
        return ast.State(span, self._name(name), tuple(map(self._name, axes)))

    def operand(self, span: Span, kind: Token, name: Token, *axes: Token | None) -> ast.Operand:
        names = tuple(self._name(axis) for axis in axes if axis is not None)
        return ast.Operand(span, kind.text, self._name(name), names)

    def param(self, span: Span, parameter: ast.Parameter) -> ast.Param:
        return ast.Param(span, parameter)

    def field(self, span: Span, name: Token, value: ast.Expr) -> ast.Field:
        return ast.Field(span, self._name(name), value)

    def override(self, span: Span, target: Token, *parts: ast.Expr | ast.Slice) -> ast.Override:
        *indices, value = parts
        assert not isinstance(value, ast.Slice)
        return ast.Override(span, self._name(target), tuple(indices), value)

    def slice(
        self, span: Span, start: ast.Expr | None, stop: ast.Expr | None, step: ast.Expr | None
    ) -> ast.Slice:
        return ast.Slice(span, start, stop, step)

    def parameters(self, span: Span, *parameters: ast.Parameter) -> tuple[ast.Parameter, ...]:
        return parameters

    def parameter(
        self,
        span: Span,
        name: Token,
        annotation: Token | None,
        default: ast.Expr | None,
        range: ast.Range | None,
    ) -> ast.Parameter:
        kind = None if annotation is None else self._name(annotation)
        return ast.Parameter(span, self._name(name), kind, default, range)

    def range(self, span: Span, low: ast.Expr, high: ast.Expr) -> ast.Range:
        return ast.Range(span, low, high)

    # --- expressions --------------------------------------------------------------------------

    def binary(self, span: Span, left: ast.Expr, op: Token, right: ast.Expr) -> ast.Binary:
        return ast.Binary(span, self._op(op), left, right)

    def negation(self, span: Span, op: Token, operand: ast.Expr) -> ast.Unary:
        return ast.Unary(span, self._op(op), operand)

    def call(self, span: Span, function: ast.Expr, arguments: tuple[ast.Argument, ...]) -> ast.Call:
        return ast.Call(span, function, arguments)

    def arguments(self, span: Span, *arguments: ast.Argument) -> tuple[ast.Argument, ...]:
        return arguments

    def argument(self, span: Span, name: Token | None, value: ast.Expr) -> ast.Argument:
        return ast.Argument(span, None if name is None else self._name(name), value)

    def attribute(self, span: Span, value: ast.Expr, name: Token) -> ast.Attribute:
        return ast.Attribute(span, value, self._name(name))

    def list(self, span: Span, *items: ast.Expr) -> ast.ListExpr:
        return ast.ListExpr(span, items)

    def name(self, span: Span, token: Token) -> ast.Name:
        return ast.Name(span, token.text)

    def boolean(self, span: Span, token: Token) -> ast.Boolean:
        return ast.Boolean(span, token.kind == "TRUE")

    def number(self, span: Span, token: Token) -> ast.Number:
        value, problem = _number(token.text)
        if problem:
            message = f"number {quote(token.text, 24)} is out of bounds: {problem}"
            self.diagnostics.add("MX013", span, message)
        sound = problem is None and not token.faulty
        return ast.Number(span, value, token.text.replace("_", "").isdigit(), sound)

    def string(self, span: Span, token: Token) -> ast.String:
        if not token.faulty:
            self._check_string(span)
        value = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), token.text[1:-1])
        return ast.String(span, value)

    def _check_string(self, span: Span) -> None:
        for match in re.finditer(r"\\.|.", span.text):
            text, start = match[0], span.start + match.start()
            place = Span(self.source, start, start + len(text))
            if text[0] == "\\" and text[1] not in ESCAPES:
                help = "the escapes are " + ", ".join(f"`\\{char}`" for char in ESCAPES)
                self.diagnostics.add("MX105", place, f"unknown escape {quote(text)}", help=help)
            elif not text.isprintable():
                self.diagnostics.add("MX105", place, f"{quote(text)} in a string")

    # --- tokens -------------------------------------------------------------------------------

    def _span(self, token: Token) -> Span:
        return Span(self.source, token.start, token.end)

    def _name(self, token: Token) -> ast.Name:
        return ast.Name(self._span(token), token.text)

    def _op(self, token: Token) -> str:
        # By kind: the text of a token may be another language's spelling, reported already.
        return load().literals[token.kind]


def _whole(parts: tuple[T | None, ...]) -> tuple[T, ...]:
    return tuple(part for part in parts if part is not None)


def _number(text: str) -> tuple[Fraction, str | None]:
    """The value of a literal, or 0 and what is wrong with its size.

    Sizes are checked before any arithmetic: `1e999999999` must not cost its digits.
    """
    match = LITERAL.fullmatch(text.replace("_", ""))
    if match is None:  # reported as malformed
        return Fraction(0), None
    whole, fraction, exponent = match[1], match[2] or "", match[3] or "0"
    if len(whole + fraction) > DIGITS:
        return Fraction(0), f"it has more than {DIGITS} digits"
    if len(exponent) > 8 or abs(int(exponent)) > EXPONENT:
        return Fraction(0), f"exponents run from -{EXPONENT} to {EXPONENT}"
    if match[0].isdigit() and int(whole) >= INTEGER_LIMIT:
        return Fraction(0), "integers stay below 2^63"
    return Fraction(int(whole + fraction)) * Fraction(10) ** (int(exponent) - len(fraction)), None
