"""The kernels of a rule as text: its steps in Triton, one program per head and block of values.

Every value is a tile with two dimensions, keys and values, of size 1 where it has no such axis. The
states stay in registers from token to token. Backward, each segment of tokens is run again from the
state that was kept before it, and then taken from its last token to its first.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from textwrap import indent

from .rule import OUTPUT, Axes, Named, Steps

SEGMENT = 64
"""Tokens between kept states."""
MOST = 16_384
"""Numbers of a tile, at most: more would not stay in registers."""
TILE = 2_048
"""Numbers of a tile where values may be cut into blocks."""
PER_WARP = 512
"""Numbers of a tile for each warp."""


@dataclass(frozen=True)
class Kernel:
    """A rule for `heads` heads of `key` and `value` channels."""

    steps: Steps
    heads: int
    key: int
    value: int

    @property
    def key_tile(self) -> int:
        return _power(self.key)

    @property
    def value_tile(self) -> int:
        whole = _power(self.value)
        return min(whole, max(4, TILE // self.key_tile)) if self.steps.separable else whole

    @property
    def blocks(self) -> int:
        """Programs per head."""
        return -(-self.value // self.value_tile)

    @property
    def fits(self) -> bool:
        return self.key_tile * self.value_tile <= MOST

    @property
    def warps(self) -> int:
        return min(8, max(1, self.key_tile * self.value_tile // PER_WARP))

    def size(self, axes: Axes) -> int:
        """Numbers of a value with these axes."""
        sizes = {"key": self.key, "value": self.value}
        return sizes[axes[0]] * (sizes[axes[1]] if axes[1:] else 1) if axes else 1

    def tile(self, axes: Axes) -> tuple[int, int]:
        return (self.key_tile if "key" in axes else 1, self.value_tile if "value" in axes else 1)

    def tile_size(self, axes: Axes) -> int:
        rows, columns = self.tile(axes)
        return rows * columns

    @cached_property
    def stem(self) -> str:
        """The name of its file."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:12]
        return f"scan_h{self.heads}_k{self.key}_v{self.value}_{digest}"

    @cached_property
    def text(self) -> str:
        return HEAD + self._forward() + "\n\n" + self._backward()

    # --------------------------------------------------------------------------------- parts

    @property
    def _states(self) -> Named:
        return self.steps.equations.states

    @property
    def _operands(self) -> Named:
        return self.steps.equations.operands

    def _places(self) -> str:
        """What the program works on."""
        return f"""\
block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
n, head = row // {self.heads}, row % {self.heads}
count = tl.load(counts + n).to(tl.int32)
first = (n * length * {self.heads} + head)
keys = tl.arange(0, {self.key_tile})[:, None]
local = tl.arange(0, {self.value_tile})[None, :]
values = block * {self.value_tile} + local
here = tl.zeros([1, 1], tl.int32)
zero = tl.zeros([1, 1], tl.float32)
in_keys, in_values = keys < {self.key}, values < {self.value}
"""

    def _offset(self, axes: Axes) -> str:
        """Of a tile's numbers in a value as it lies in memory."""
        return {
            (): "here",
            ("key",): "keys",
            ("value",): "values",
            ("key", "value"): f"(keys * {self.value} + values)",
            ("value", "key"): f"(values * {self.key} + keys)",
        }[axes]

    def _tile_offset(self, axes: Axes) -> str:
        """Of a tile's numbers in the scratch of a program."""
        both = f"(keys * {self.value_tile} + local)"
        return both if len(axes) == 2 else {(): "here", ("key",): "keys", ("value",): "local"}[axes]

    def _mask(self, axes: Axes) -> str:
        inside = [f"in_{axis}s" for axis in ("key", "value") if axis in axes]
        return " & ".join(inside) or "None"

    def _load(self, pointer: str, axes: Axes) -> str:
        mask = self._mask(axes)
        rest = f", mask={mask}, other=0.0" if axes else ""
        return f"tl.load({pointer} + {self._offset(axes)}{rest})"

    def _store(self, pointer: str, axes: Axes, what: str) -> str:
        rows, columns = self.tile(axes)
        return (
            f"tl.store({pointer} + {self._offset(axes)}, tl.broadcast_to({what} + zero, "
            f"[{rows}, {columns}]), mask={self._mask(axes)})\n"
        )

    def _token(self, pointer: str, axes: Axes, at: str = "at") -> str:
        """Where the value of a token lies."""
        size = self.size(axes)
        return f"{pointer} + (first + {at} * {self.heads}) * {size}"

    def _step(self, x: int) -> str:
        """A step by its name, or the number that it is."""
        step = self.steps.program.steps[x]
        if step.op == "constant":
            return f"({step.name})"
        return f"v{x}"

    def _lines(self, needed: list[int]) -> str:
        """The steps, but for inputs of a token, which have been loaded."""
        written = ""
        for x in needed:
            step = self.steps.program.steps[x]
            if step.op != "constant" and (step.op != "input" or step.name.startswith("ones_")):
                written += f"v{x} = {self._expression(x)}\n"
        return written

    def _expression(self, x: int) -> str:
        step = self.steps.program.steps[x]
        inputs = [self._step(y) for y in step.inputs]
        match step.op:
            case "input":
                rows, columns = self.tile(tuple(step.axes))
                return f"tl.full([{rows}, {columns}], 1.0, tl.float32)"
            case "mul" | "add" | "sub" | "div":
                sign = {"mul": "*", "add": "+", "sub": "-", "div": "/"}[step.op]
                return f"{inputs[0]} {sign} {inputs[1]}"
            case "sum_key":
                return f"tl.sum({self._inside(inputs[0], 'key')}, 0, keep_dims=True)"
            case "sum_value":
                return f"tl.sum({self._inside(inputs[0], 'value')}, 1, keep_dims=True)"
            case "positive":
                return f"tl.where({inputs[0]} > 0, 1.0, 0.0)"
        return f"tl.{step.op}({inputs[0]})"

    def _inside(self, what: str, axis: str) -> str:
        """Without what stands beyond an axis's end."""
        size, tile = {"key": (self.key, self.key_tile), "value": (self.value, self.value_tile)}[
            axis
        ]
        return what if size % tile == 0 else f"tl.where(in_{axis}s, {what}, 0.0)"

    def _number(self, name: str) -> int | None:
        """The step of an input, if any step reads it."""
        for number, step in enumerate(self.steps.program.steps):
            if step.op == "input" and step.name == name:
                return number
        return None

    def _inputs(self, named: Named, prefix: str, needed: list[int]) -> str:
        """Loads of what a token brings."""
        written = ""
        for name, axes in named:
            number = self._number(prefix + name)
            if number in needed:
                pointer = self._token(f"{prefix}x_{name}", axes)
                written += f"v{number} = {self._load(pointer, axes)}\n"
        return written

    def _named_states(self, needed: list[int]) -> str:
        """The states that the program holds, as inputs of steps."""
        return "".join(
            f"v{self._number(name)} = s_{name}\n"
            for name, _ in self._states if self._number(name) in needed
        )  # fmt: skip

    def _moves(self) -> str:
        moves = ""
        for name, axes in self._states:
            rows, columns = self.tile(axes)
            what = self._step(self.steps.moved[name])
            moves += f"n_{name} = tl.broadcast_to({what} + zero, [{rows}, {columns}])\n"
        return moves + "".join(f"s_{name} = n_{name}\n" for name, _ in self._states)

    def _row(self, pointer: str, axes: Axes, index: str = "row") -> str:
        return f"{pointer} + {index} * {self.size(axes)}"

    # ------------------------------------------------------------------------------- kernels

    def arguments(self, function: str) -> list[str]:
        """Names of a kernel's arguments, constants left out, in order."""
        kinds: tuple[str, ...] = ("kept", "held", "d_after", "d_before")
        last = [f"d_x_{name}" for name, _ in self._operands] + [f"d_x_{OUTPUT}"]
        numbers = ["length", "segments", "sequences"]
        if function == "scan_forward":
            kinds, last, numbers = ("before", "after", "kept"), ["o"], numbers[:2]
        states = [f"{kind}_{name}" for kind in kinds for name, _ in self._states]
        return [*(f"x_{name}" for name, _ in self._operands), *states, *last, "counts", *numbers]

    def _forward(self) -> str:
        needed = self.steps.forward
        loads = "".join(f"s_{name} = {self._load(self._row(f'before_{name}', axes), axes)}\n"
                        for name, axes in self._states)  # fmt: skip
        keep = "".join(
            self._store(self._row(f"kept_{name}", axes, f"(row * segments + t // {SEGMENT})"),
                        axes, f"s_{name}")
            for name, axes in self._states)  # fmt: skip
        body = f"at = row * 0 + t  # in 64 bits\nif KEEP:\n    if t % {SEGMENT} == 0:\n"
        body += indent(keep, " " * 8)
        body += self._inputs(self._operands, "", needed) + self._named_states(needed)
        body += self._lines(needed)
        body += self._store(self._token("o", ("value",)), ("value",), self._step(self.steps.o))
        body += self._moves()
        ends = "".join(self._store(self._row(f"after_{name}", axes), axes, f"s_{name}")
                       for name, axes in self._states)  # fmt: skip
        text = self._places() + loads + "for t in range(0, count):\n" + indent(body, "    ") + ends
        return _function("scan_forward", self.arguments("scan_forward"), ["KEEP"], text)

    def _backward(self) -> str:
        text = self._places() + self._start()
        text += f"for back in range(0, tl.cdiv(count, {SEGMENT})):\n"
        text += indent(self._segment(), "    ") + self._ends()
        return _function("scan_backward", self.arguments("scan_backward"), [], text)

    def _start(self) -> str:
        """The gradients of the last states. Those without values count in one block alone."""
        text = f"program = row * {self.blocks} + block\n"
        for name, axes in self._states:
            load = self._load(self._row(f"d_after_{name}", axes), axes)
            once = "" if "value" in axes else " * (block == 0)"
            text += f"d_s_{name} = {load}{once}\n"
        return text

    def _segment(self) -> str:
        again = f"segment = tl.cdiv(count, {SEGMENT}) - 1 - back\nstart = segment * {SEGMENT}\n"
        again += f"inside = tl.minimum({SEGMENT}, count - start)\n"
        for name, axes in self._states:
            pointer = self._row(f"kept_{name}", axes, "(row * segments + segment)")
            again += f"s_{name} = {self._load(pointer, axes)}\n"
        needed = self.steps.program.needed(self.steps.moved.values())
        body = "at = row * 0 + start + j\n"
        for name, axes in self._states:
            body += f"tl.store({self._held(name, axes)}, s_{name})\n"
        body += self._inputs(self._operands, "", needed) + self._named_states(needed)
        body += self._lines(needed) + self._moves()
        again += "for j in range(0, inside):\n" + indent(body, "    ") + "tl.debug_barrier()\n"
        again += "for i in range(0, inside):\n" + indent(self._token_back(), "    ")
        return again + "tl.debug_barrier()\n"

    def _held(self, name: str, axes: Axes) -> str:
        """The scratch of a state before token j of the segment."""
        at = f"(program * {SEGMENT} + j) * {self.tile_size(axes)}"
        return f"held_{name} + {at} + {self._tile_offset(axes)}"

    def _token_back(self) -> str:
        gradients, program = self.steps.gradients, self.steps.program
        needed = program.needed(gradients.values())
        body = "j = inside - 1 - i\nat = row * 0 + start + j\n"
        for name, axes in self._states:
            body += f"s_{name} = tl.load({self._held(name, axes)})\n"
        body += self._inputs(self._operands, "", needed) + self._named_states(needed)
        body += self._inputs(((OUTPUT, ("value",)),), "d_", needed)
        for name, _ in self._states:
            body += f"v{self._number(f'd_{name}')} = d_s_{name}\n"
        body += self._lines(needed)
        for name, axes in self._operands:
            pointer = self._token(f"d_x_{name}", axes)
            if "value" not in axes and self.blocks > 1:
                pointer += f" + (block + here) * sequences * length * {self._wide(axes)}"
            body += self._store(pointer, axes, self._step(gradients[name]))
        for name, axes in self._states:
            rows, columns = self.tile(axes)
            what = self._step(gradients[name])
            body += f"n_{name} = tl.broadcast_to({what} + zero, [{rows}, {columns}])\n"
        return body + "".join(f"d_s_{name} = n_{name}\n" for name, _ in self._states)

    def _wide(self, axes: Axes) -> int:
        return self.heads * self.size(axes)

    def _ends(self) -> str:
        text = ""
        for name, axes in self._states:
            pointer = self._row(f"d_before_{name}", axes)
            if "value" not in axes and self.blocks > 1:
                pointer += f" + (block + here) * sequences * {self._wide(axes)}"
            text += self._store(pointer, axes, f"d_s_{name}")
        return text


HEAD = '''\
"""A recurrence of a spec's own equations: see source.py, which wrote this."""

import triton
import triton.language as tl


'''


def _function(name: str, arguments: list[str], constants: list[str], body: str) -> str:
    heads = [*arguments, *(f"{constant}: tl.constexpr" for constant in constants)]
    lines = "".join(f"    {argument},\n" for argument in heads)
    return f"@triton.jit\ndef {name}(\n{lines}):\n{indent(body, '    ')}"


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()
