"""Equations from syntax to nodes: names resolved, shapes held to, what is linear told apart."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from ...diagnostics.suggest import did_you_mean
from ...primitives import ACTIVATIONS
from ...source import Span
from ...syntax import ast
from .. import registry
from ..arithmetic import Rejected, bounded
from ..report import Reporter
from ..values import Failed
from .declared import SHAPED, Declared
from .node import IDENTITY, OUTPUT, Axes, Node, Obstacle, shown

FUNCTIONS = (*ACTIVATIONS, "exp")
"""Functions of each number."""

ARGUMENTS = {"outer": 2, "diag": 1, **dict.fromkeys(FUNCTIONS, 1)}

Number = Callable[[ast.Name], Fraction | None]
"""What a name outside of the equations stands for; None for an unknown one."""


class Checker:
    """Checks the expressions of one recurrence. spend: pays for each node."""

    def __init__(
        self, found: Declared, number: Number, report: Reporter, spend: Callable[[Span], None]
    ) -> None:
        self.found = found
        self.number = number
        self.report = report
        self.spend = spend
        self.lines: dict[str, Node] = {}
        """The value of every name that a line has given so far."""

    def expression(self, expr: ast.Expr, hint: Axes | None = None) -> Node:
        """hint: axes of what it is added to or multiplied with, for `I`. Raises Failed."""
        self.spend(expr.span)
        match expr:
            case ast.Name():
                return self._name(expr, hint)
            case ast.Number():
                return self._number(expr)
            case ast.Unary():
                operand = self.expression(expr.operand, hint)
                return self._made("negate", operand.axes, expr.span, operand)
            case ast.Binary():
                return self._binary(expr, hint)
            case ast.Call():
                return self._call(expr)
            case ast.Attribute():
                return self._transpose(expr)
        return self.fail("MX301", expr.span, "an equation takes numbers, vectors and matrices")

    def _number(self, expr: ast.Number) -> Node:
        if not expr.sound:
            raise Failed
        try:
            return Node("number", (), expr.span, number=Fraction(bounded(expr.value)))
        except Rejected as error:
            return self.fail(error.code, expr.span, error.message, error.help)

    def fail(self, code: str, span: Span, message: str, help: str | None = None) -> Node:
        self.report(code, span, message, help=help)
        raise Failed

    def _made(self, op: str, axes: Axes, span: Span, *inputs: Node) -> Node:
        """A node that is linear in what its inputs are linear in."""
        obstacle = next((each.obstacle for each in inputs if each.obstacle), None)
        states = any(each.states for each in inputs)
        return Node(op, axes, span, inputs, states=states, obstacle=obstacle)

    def _nonlinear(self, node: Node, reason: str) -> Node:
        """The node, where it holds a state a first obstacle to being linear in it."""
        if not node.states or node.obstacle:
            return node
        obstacle = Obstacle(node.span, reason)
        return Node(node.op, node.axes, node.span, node.inputs, states=True, obstacle=obstacle)

    # ---------------------------------------------------------------------------------- names

    def _name(self, expr: ast.Name, hint: Axes | None) -> Node:
        name, found = expr.id, self.found
        if name in self.lines:
            before = self.lines[name]
            return Node(
                "name",
                before.axes,
                expr.span,
                name=name,
                states=before.states,
                obstacle=before.obstacle,
            )
        if name in found.states:
            return Node("name", found.states[name], expr.span, name=name, states=True)
        if name in found.operands:
            return Node("name", found.operands[name].axes, expr.span, name=name)
        if name == IDENTITY:
            return self._identity(expr, hint)
        number = self.number(expr)
        if number is not None:
            return Node("number", (), expr.span, number=number)
        return self._unknown(expr)

    def _identity(self, expr: ast.Name, hint: Axes | None) -> Node:
        if hint is None or len(hint) != 2 or hint[0] != hint[1]:
            self.fail(
                "MX401",
                expr.span,
                "nothing here says how large `I` is",
                "add it to a square matrix: I - b * outer(k, k)",
            )
        assert hint is not None
        return Node(IDENTITY, hint, expr.span)

    def _unknown(self, expr: ast.Name) -> Node:
        known = self.found.names | self.lines.keys()
        help = did_you_mean(expr.id, known | set(ARGUMENTS))
        if expr.id == OUTPUT:
            help = "`o` is read after its line"
        if expr.id in ARGUMENTS:
            help = f"call it: {expr.id}(...)"
        return self.fail(
            "MX201",
            expr.span,
            f"unknown name `{expr.id}`",
            help or "declare what a token brings: key e, value u, gate c, decay w, weight d",
        )

    # ------------------------------------------------------------------------------ operators

    def _binary(self, expr: ast.Binary, hint: Axes | None) -> Node:
        if expr.op in ("+", "-", "*"):
            left, right = self._pair(expr, hint)
            return (
                self._sum(expr, left, right) if expr.op != "*" else self._product(expr, left, right)
            )
        if expr.op in ("/", "@"):
            left, right = self.expression(expr.left, hint), self.expression(expr.right)
            return (self._quotient if expr.op == "/" else self._contraction)(expr, left, right)
        return self.fail(
            "MX301",
            expr.span,
            f"`{expr.op}` has no meaning in an equation",
            "equations take + - * / and @",
        )

    def _pair(self, expr: ast.Binary, hint: Axes | None) -> tuple[Node, Node]:
        """Both sides; one with an `I` after the other, which says how large it is."""
        if expr.op != "*" and _sizeless(expr.left):
            right = self.expression(expr.right, hint)
            return self.expression(expr.left, right.axes), right
        left = self.expression(expr.left, hint)
        return left, self.expression(expr.right, left.axes if expr.op != "*" else hint)

    def _sum(self, expr: ast.Binary, left: Node, right: Node) -> Node:
        small, large = sorted((left, right), key=lambda node: len(node.axes))
        if left.axes == right.axes or (not small.axes and len(large.axes) == 1):
            return self._made(expr.op, large.axes, expr.span, left, right)
        help = None
        if len(left.axes) == 2 and left.axes == right.axes[::-1]:
            help = "`.T` swaps the axes of a matrix"
        elif not small.axes:
            help = "a matrix with ones on its diagonal is I"
        return self.fail(
            "MX401",
            expr.span,
            f"`{expr.op}` does not join {shown(left.axes)} and {shown(right.axes)}",
            help,
        )

    def _product(self, expr: ast.Binary, left: Node, right: Node) -> Node:
        small, large = sorted((left, right), key=lambda node: len(node.axes))
        once = len(small.axes) == 1 and large.axes.count(small.axes[0]) == 1
        if small.axes and small.axes != large.axes and not once:
            help = "`@` multiplies matrices" if len(small.axes) == 2 else None
            if len(large.axes) == 1:
                help = f"outer({expr.left.span.text[:20]}, {expr.right.span.text[:20]}) is a matrix"
            self.fail(
                "MX401",
                expr.span,
                f"`*` does not join {shown(left.axes)} and "
                f"{shown(right.axes)}: it works channel by channel",
                help,
            )
        node = self._made("*", large.axes, expr.span, left, right)
        return self._both(node, "a product")

    def _both(self, node: Node, what: str) -> Node:
        """A product is not linear where both of its sides hold a state."""
        left, right = node.inputs
        if left.states and right.states:
            return self._nonlinear(node, f"{what} of two terms that both hold the state")
        return node

    def _quotient(self, expr: ast.Binary, left: Node, right: Node) -> Node:
        if right.axes and right.axes != left.axes:
            self.fail(
                "MX401",
                expr.span,
                f"`/` does not join {shown(left.axes)} and {shown(right.axes)}",
                "divide by a number, or by the same shape",
            )
        if right.op == "number" and right.number == 0:
            self.fail("MX306", right.span, "division by zero")
        node = self._made("/", left.axes, expr.span, left, right)
        return self._nonlinear(node, "a division by the state") if right.states else node

    def _contraction(self, expr: ast.Binary, left: Node, right: Node) -> Node:
        if not left.axes or not right.axes:
            self.fail("MX401", expr.span, "`@` takes vectors and matrices", "numbers multiply: *")
        if left.axes[-1] != right.axes[0]:
            self.fail(
                "MX401",
                expr.span,
                f"`@` sums over the last axis of {shown(left.axes)} and "
                f"the first of {shown(right.axes)}, which differ",
                _way_to_fit(expr, left, right),
            )
        axes = left.axes[:-1] + right.axes[1:]
        return self._both(self._made("@", axes, expr.span, left, right), "a product")

    # ------------------------------------------------------------------------------ functions

    def _transpose(self, expr: ast.Attribute) -> Node:
        if expr.name.id != "T":
            self.fail(
                "MX301",
                expr.name.span,
                f"`.{expr.name.id}` has no meaning in an equation",
                "the transposed matrix is `.T`",
            )
        matrix = self.expression(expr.value)
        if len(matrix.axes) != 2:
            text = expr.value.span.text[:20]
            self.fail(
                "MX401",
                expr.span,
                f"`.T` takes a matrix, not {shown(matrix.axes)}",
                f"{text} @ S multiplies from the left, outer({text}, ...) makes a matrix",
            )
        return self._made("T", matrix.axes[::-1], expr.span, matrix)

    def _call(self, expr: ast.Call) -> Node:
        name = expr.function.id if isinstance(expr.function, ast.Name) else ""
        if name not in ARGUMENTS:
            self._no_function(expr.function, name)
        for argument in expr.arguments:
            if argument.name is not None:
                self.fail("MX202", argument.name.span, f"`{name}` has no named arguments")
        if len(expr.arguments) != ARGUMENTS[name]:
            few = len(expr.arguments) < ARGUMENTS[name]
            self.fail(
                "MX303" if few else "MX304",
                expr.span,
                f"`{name}` takes {ARGUMENTS[name]} argument{'s' * (ARGUMENTS[name] > 1)}, "
                f"not {len(expr.arguments)}",
            )
        inputs = [self.expression(argument.value) for argument in expr.arguments]
        return self._applied(name, expr.span, inputs)

    def _no_function(self, function: ast.Expr, name: str) -> None:
        help = did_you_mean(name, ARGUMENTS) or f"equations know {', '.join(ARGUMENTS)}"
        if "feature" in registry.constructors().get(name, {}):
            help = f"q and k are mapped where the rule is called: features={name}"
        self.fail("MX201", function.span, f"unknown function `{function.span.text[:40]}`", help)

    def _applied(self, name: str, span: Span, inputs: list[Node]) -> Node:
        if name in FUNCTIONS:
            node = self._made(name, inputs[0].axes, span, *inputs)
            return self._nonlinear(node, f"{name} of the state")
        for each in inputs:
            if len(each.axes) != 1:
                help = (
                    f"declare its axis: {SHAPED[each.name]} {each.name}[key]"
                    if (each.name in SHAPED and not each.axes)
                    else None
                )
                self.fail(
                    "MX401", each.span, f"`{name}` takes vectors, not {shown(each.axes)}", help
                )
        if name == "diag":
            return self._made(name, inputs[0].axes * 2, span, *inputs)
        node = self._made(name, inputs[0].axes + inputs[1].axes, span, *inputs)
        return self._both(node, "an outer product")


def _sizeless(expr: ast.Expr) -> bool:
    """Whether an expression is `I`, or a multiple of it."""
    match expr:
        case ast.Name():
            return expr.id == IDENTITY
        case ast.Unary():
            return _sizeless(expr.operand)
        case ast.Binary():
            return expr.op in ("+", "-", "*", "/") and (
                _sizeless(expr.left) or _sizeless(expr.right)
            )
    return False


def _way_to_fit(expr: ast.Binary, left: Node, right: Node) -> str | None:
    """A transposition that makes `@` fit, or the outer product that was meant."""
    one, two = expr.left.span.text[:20], expr.right.span.text[:20]
    if len(left.axes) == 2 and left.axes[0] == right.axes[0]:
        return f"{one}.T @ {two} sums over {right.axes[0]}"
    if len(right.axes) == 2 and left.axes[-1] == right.axes[1]:
        return f"{one} @ {two}.T sums over {left.axes[-1]}"
    if len(left.axes) == len(right.axes) == 1:
        return f"outer({one}, {two}) is {shown(left.axes + right.axes)}"
    return None
