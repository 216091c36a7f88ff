"""Equations of one token as elementary steps, and the steps of their gradient.

Axes have names, so a value is a number, a row of keys, a row of values or a matrix of both, however
its axes were written: `.T` is nothing, `outer(k, v)` is k * v, and `S.T @ k` is the sum of S * k
over keys. What is left is element-wise, and sums over an axis. Matrices with one axis twice
(`outer(k, k)`, `diag(a)`, `I`) are never made: they act on what they multiply.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import pi, sqrt

Axes = frozenset[str]
NONE: Axes = frozenset()

MOST_STEPS, MOST_WORK, MOST_DEEP = 500, 5_000, 50
"""Steps of a program, steps asked for while it is made, and squares in a product or sum of them, at
most: named in lines, squares of squares would grow without end."""


class Unsupported(Exception):
    """What these steps cannot say."""


@dataclass(frozen=True)
class Step:
    """op: `input` or `constant` (name), `mul`, `add`, `sub`, `div`, `sum_key`, `sum_value`, `exp`,
    `sigmoid`, `erf`, `positive` (1 where above 0). inputs: numbers of earlier steps."""

    op: str
    inputs: tuple[int, ...]
    axes: Axes
    name: str = ""


class Program:
    """Steps, each made once."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._numbers: dict[Step, int] = {}
        self._work = 0

    def pay(self) -> None:
        """Count what is asked for."""
        self._work += 1
        if self._work > MOST_WORK or len(self.steps) > MOST_STEPS:
            raise Unsupported(f"more than {MOST_STEPS} steps a token")

    def _made(self, op: str, inputs: tuple[int, ...], axes: Axes, name: str = "") -> int:
        self.pay()
        step = Step(op, inputs, axes, name)
        if step not in self._numbers:
            self._numbers[step] = len(self.steps)
            self.steps.append(step)
        return self._numbers[step]

    def axes(self, x: int) -> Axes:
        return self.steps[x].axes

    def input(self, name: str, axes: Iterable[str]) -> int:
        return self._made("input", (), frozenset(axes), name)

    def constant(self, value: float) -> int:
        return self._made("constant", (), NONE, repr(float(value)))

    def is_constant(self, x: int, value: float) -> bool:
        return self.steps[x].op == "constant" and float(self.steps[x].name) == value

    def both(self, op: str, x: int, y: int) -> int:
        """x op y, channel by channel."""
        if op == "mul" and (self.is_constant(x, 1) or self.is_constant(y, 1)):
            return y if self.is_constant(x, 1) else x
        if op == "mul" and (self.is_constant(x, 0) or self.is_constant(y, 0)):
            return self.constant(0)
        if op == "add" and (self.is_constant(x, 0) or self.is_constant(y, 0)):
            return y if self.is_constant(x, 0) else x
        return self._made(op, (x, y), self.axes(x) | self.axes(y))

    def each(self, function: str, x: int) -> int:
        return self._made(function, (x,), self.axes(x))

    def summed(self, x: int, axis: str) -> int:
        """The sum of x over an axis that it has."""
        assert axis in self.axes(x), (axis, self.steps[x])
        return self._made(f"sum_{axis}", (x,), self.axes(x) - {axis})

    def product(self, x: int, y: int, axis: str) -> int:
        """The sum of x * y over an axis."""
        return self.summed(self.both("mul", x, y), axis)

    def negative(self, x: int) -> int:
        return self.both("mul", self.constant(-1), x)

    def function(self, name: str, x: int) -> int:
        """A function of the language, by those that steps know."""
        one = self.constant(1)
        match name:
            case "exp" | "sigmoid":
                return self.each(name, x)
            case "silu":
                return self.both("mul", x, self.each("sigmoid", x))
            case "tanh":
                twice = self.both("mul", self.constant(2), x)
                doubled = self.both("mul", self.constant(2), self.each("sigmoid", twice))
                return self.both("sub", doubled, one)
            case "relu":
                return self.both("mul", x, self.each("positive", x))
            case "relu2":
                above = self.function("relu", x)
                return self.both("mul", above, above)
            case "gelu":
                erf = self.each("erf", self.both("mul", self.constant(sqrt(0.5)), x))
                half = self.both("mul", self.constant(0.5), x)
                return self.both("mul", half, self.both("add", one, erf))
        raise Unsupported(f"{name} has no steps")

    def needed(self, outputs: Iterable[int]) -> list[int]:
        """The steps that outputs depend on, in order."""
        found: set[int] = set()
        stack = list(outputs)
        while stack:
            x = stack.pop()
            if x not in found:
                found.add(x)
                stack.extend(self.steps[x].inputs)
        return sorted(found)

    # -------------------------------------------------------------------------------- gradient

    def gradient(self, seeds: Mapping[int, int], wanted: Iterable[int]) -> dict[int, int]:
        """Of what has the gradients `seeds` by step: the gradients of the `wanted` steps."""
        wanted = list(wanted)
        sums = dict(seeds)
        for x in reversed(self.needed(seeds)):
            if x in sums:
                for y, part in self._parts(x, sums[x]):
                    sums[y] = self.both("add", sums[y], part) if y in sums else part
        return {x: sums.get(x, self.constant(0)) for x in wanted}

    def _parts(self, x: int, d: int) -> list[tuple[int, int]]:
        """What the gradient d of step x gives each of its inputs."""
        step = self.steps[x]
        match step.op, step.inputs:
            case "mul", (a, b):
                parts = [(a, self.both("mul", d, b)), (b, self.both("mul", d, a))]
            case "add", (a, b):
                parts = [(a, d), (b, d)]
            case "sub", (a, b):
                parts = [(a, d), (b, self.negative(d))]
            case "div", (a, b):
                part = self.both("div", d, b)
                parts = [(a, part), (b, self.negative(self.both("mul", part, x)))]
            case (("sum_key" | "sum_value"), (a,)):
                parts = [(a, d)]
            case "exp", (a,):
                parts = [(a, self.both("mul", d, x))]
            case "sigmoid", (a,):
                rest = self.both("sub", self.constant(1), x)
                parts = [(a, self.both("mul", d, self.both("mul", x, rest)))]
            case "erf", (a,):
                bell = self.each("exp", self.negative(self.both("mul", a, a)))
                parts = [
                    (a, self.both("mul", d, self.both("mul", self.constant(2 / sqrt(pi)), bell)))
                ]
            case _:
                parts = []
        return [(y, self._held(part, y, x)) for y, part in parts if self.steps[y].op != "constant"]

    def _held(self, part: int, y: int, x: int) -> int:
        """A gradient summed over the axes of x that y lacks."""
        for axis in sorted(self.axes(x) - self.axes(y)):
            if axis not in self.axes(part):  # the same along it: spread, so that the sum counts it
                part = self.both("mul", part, self.input(f"ones_{axis}", (axis,)))
            part = self.summed(part, axis)
        return part


# ------------------------------------------------------------------------------- equations to steps


@dataclass(frozen=True)
class Tensor:
    """A step with the order of its axes."""

    step: int
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Square:
    """A matrix with one axis twice, as what it does: to a step with that axis, summed over the
    second of its axes (rows), or over the first (columns)."""

    axis: str
    rows: Callable[[int], int]
    columns: Callable[[int], int]
    depth: int = 1


Found = Tensor | Square


class Reader:
    """Reads equations, in Python's syntax, into the steps of a program."""

    def __init__(self, program: Program, known: Mapping[str, tuple[str, ...]]) -> None:
        self.program = program
        self.names: dict[str, Found] = {
            name: Tensor(program.input(name, axes), axes) for name, axes in known.items()
        }

    def line(self, text: str) -> None:
        match ast.parse(text).body:
            case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
                self.names[name] = self._read(value)
            case _:
                raise Unsupported(text)

    def step(self, name: str) -> int:
        found = self.names[name]
        if isinstance(found, Square):
            raise Unsupported(name)
        return found.step

    def _square(
        self, axis: str, rows: Callable[[int], int], columns: Callable[[int], int], *of: Square
    ) -> Square:
        """A square made of others."""
        depth = 1 + max((each.depth for each in of), default=0)
        if depth > MOST_DEEP:
            raise Unsupported(f"squares of squares, {MOST_DEEP} deep")

        def paid(act: Callable[[int], int]) -> Callable[[int], int]:
            def apply(x: int) -> int:
                self.program.pay()
                return act(x)

            return apply

        return Square(axis, paid(rows), paid(columns), depth)

    def _read(self, node: ast.expr) -> Found:
        match node:
            case ast.Name(id=name):
                return self.names[name]
            case ast.Constant(value=int() | float() as number):
                return Tensor(self.program.constant(number), ())
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._scaled(self._read(operand), self.program.constant(-1), "mul")
            case ast.Attribute(value=ast.Name(id="I"), attr=axis):
                return self._square(axis, lambda x: x, lambda x: x)
            case ast.Attribute(value=matrix, attr="T"):
                return self._transposed(self._read(matrix))
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(type(op), self._read(left), self._read(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._call(name, [self._read(argument) for argument in args])
        raise Unsupported(ast.unparse(node))

    def _binary(self, op: type[ast.operator], x: Found, y: Found) -> Found:
        if op is ast.MatMult:
            return self._contracted(x, y)
        if op in (ast.Add, ast.Sub):
            return self._added("add" if op is ast.Add else "sub", x, y)
        name = "mul" if op is ast.Mult else "div"
        if isinstance(y, Tensor) and not y.axes:
            return self._scaled(x, y.step, name)
        if isinstance(x, Tensor) and not x.axes and name == "mul":
            return self._scaled(y, x.step, name)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            axes = max(x.axes, y.axes, key=len)
            return Tensor(self.program.both(name, x.step, y.step), axes)
        raise Unsupported("a square matrix times another, channel by channel")

    def _scaled(self, x: Found, by: int, op: str) -> Found:
        """x times a number, or over it."""
        both = self.program.both
        if isinstance(x, Tensor):
            one, two = (x.step, by) if op == "div" else (by, x.step)
            return Tensor(both(op, one, two), x.axes)
        square = x
        return self._square(
            square.axis,
            lambda y: both(op, square.rows(y), by),
            lambda y: both(op, square.columns(y), by),
            square,
        )

    def _added(self, op: str, x: Found, y: Found) -> Found:
        both = self.program.both
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return Tensor(both(op, x.step, y.step), max(x.axes, y.axes, key=len))
        if isinstance(x, Square) and isinstance(y, Square):
            one, two = x, y
            return self._square(
                one.axis,
                lambda z: both(op, one.rows(z), two.rows(z)),
                lambda z: both(op, one.columns(z), two.columns(z)),
                one,
                two,
            )
        raise Unsupported("a square matrix and what is none")

    def _transposed(self, x: Found) -> Found:
        if isinstance(x, Square):
            return self._square(x.axis, x.columns, x.rows, x)
        return Tensor(x.step, x.axes[::-1])

    def _contracted(self, x: Found, y: Found) -> Found:
        if isinstance(x, Square) and isinstance(y, Square):
            one, two = x, y
            return self._square(
                one.axis,
                lambda z: one.rows(two.rows(z)),
                lambda z: two.columns(one.columns(z)),
                one,
                two,
            )
        if isinstance(x, Square):
            assert isinstance(y, Tensor)
            return Tensor(x.rows(y.step), y.axes)
        if isinstance(y, Square):
            return Tensor(y.columns(x.step), x.axes)
        axes = x.axes[:-1] + y.axes[1:]
        if len(set(axes)) < len(axes):  # S @ S.T: a matrix of the same axis twice
            return self._gram(x, y)
        return Tensor(self.program.product(x.step, y.step, x.axes[-1]), axes)

    def _gram(self, x: Tensor, y: Tensor) -> Found:
        """x @ y of two matrices with the outer axis twice, as what it does."""
        product, inner, outer = self.program.product, x.axes[-1], x.axes[0]

        def rows(z: int) -> int:
            if inner in self.program.axes(z):
                raise Unsupported("a product of three matrices")
            return product(x.step, product(y.step, z, outer), inner)

        def columns(z: int) -> int:
            if inner in self.program.axes(z):
                raise Unsupported("a product of three matrices")
            return product(y.step, product(x.step, z, outer), inner)

        return self._square(outer, rows, columns)

    def _call(self, name: str, found: list[Found]) -> Found:
        tensors = [each for each in found if isinstance(each, Tensor)]
        if len(tensors) < len(found):
            raise Unsupported(f"{name} of a square matrix")
        both, product = self.program.both, self.program.product
        if name == "diag":
            (x,) = tensors
            return self._square(
                x.axes[0], lambda z: both("mul", x.step, z), lambda z: both("mul", z, x.step)
            )
        if name != "outer":
            return Tensor(self.program.function(name, tensors[0].step), tensors[0].axes)
        x, y = tensors
        if x.axes != y.axes:
            return Tensor(both("mul", x.step, y.step), x.axes + y.axes)
        axis = x.axes[0]
        return self._square(
            axis,
            lambda z: both("mul", x.step, product(y.step, z, axis)),
            lambda z: both("mul", y.step, product(x.step, z, axis)),
        )
