"""Pieces of generated source as text: the filters of the templates."""

from __future__ import annotations

from itertools import pairwise
from textwrap import wrap

from .expression import WIDTH, flat, laid_out
from .layer import LayerClass, Module
from .naming import enumerate_numbers, one_line
from .stack import Sharing, construction, filled
from .statement import Statement

BODY = 8
"""Columns that the body of a method is indented by."""

COLUMN = 64
"""Shape comments of a forward line up, unless its statements reach beyond this column."""


def import_of(file: str, names: tuple[str, ...]) -> str:
    """`from .nn.norm import RMSNorm`, broken over lines where it is long."""
    module = file.removesuffix(".py").replace("/", ".")
    line = f"from .{module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from .{module} import (", *(f"    {name}," for name in names), ")"])


def about_layer(layer: LayerClass) -> str:
    """The comment above a class."""
    place = f" ({layer.place})" if layer.place else ""
    noun = "layer" if len(layer.indices) == 1 else "layers"
    each = "" if len(layer.indices) == 1 else " each"
    numbers = enumerate_numbers(layer.indices)
    return f"{layer.label}{place}: {noun} {numbers}; {layer.parameters:,} parameters{each}"


def about_kernels(layer: LayerClass) -> list[str]:
    """The comment that says what runs a layer on a GPU, a line for each softmax."""
    width = WIDTH - len("# ")
    if len(layer.served) == 1:
        return wrap(f"On a GPU: {layer.served[0]}", width, subsequent_indent="  ")
    parts = [line for part in layer.served
             for line in wrap(part, width, initial_indent="  ", subsequent_indent="    ")]
    return ["On a GPU:", *parts] if parts else []


def module_lines(module: Module) -> str:
    """The statement that builds a module, with its shape, size and place."""
    pad = " " * BODY
    head = f"{pad}self.{module.name} = "
    shape = f"{module.width} -> {module.out}"
    if module.alias is not None:
        return f"{head}self.{module.alias}  # tied"
    notes = [shape, f"{module.parameters:,} parameters", module.place]
    note = one_line(", ".join(note for note in notes if note))
    code = head + laid_out(module.call, BODY, len(head))
    if "\n" not in code and len(code) + len(note) + 4 <= WIDTH:
        return f"{code}  # {note}"
    return f"{pad}# {note}\n{code}"


def statement_lines(layer: LayerClass) -> list[str]:
    """The statements of a forward, each with the shape of its result."""
    codes = [_code(statement) for statement in layer.statements]
    column = max((len(code) for code in codes if len(code) <= COLUMN), default=0)
    return [
        f"{code:<{column}}  # ({', '.join(map(str, statement.type.axes))})"
        for code, statement in zip(codes, layer.statements, strict=True)
    ]


def _code(statement: Statement) -> str:
    head = " " * BODY + f"{statement.target} = "
    room = len("  # (B, T, 2147483647)")
    return head + laid_out(statement.expression, BODY, len(head), room)


def sharing_lines(sharing: Sharing) -> str:
    """The statements by which layers share a module."""
    pad = " " * BODY
    owner = f"self.layers[{sharing.owner}].{sharing.owner_name}"
    if len(sharing.layers) == 1:
        return f"{pad}self.layers[{sharing.layers[0]}].{sharing.name} = {owner}  # tied"
    body = f"{pad}    self.layers[index].{sharing.name} = {owner}  # tied"
    return "\n".join([*_loop(sharing.layers), body])


def _loop(numbers: tuple[int, ...]) -> list[str]:
    """The head of a loop over numbers: over a range where they are one, else a tuple."""
    head = " " * BODY + "for index in "
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) > 2 and len(steps) == 1:
        (step,) = steps
        stride = f", {step}" if step != 1 else ""
        return [f"{head}range({numbers[0]}, {numbers[-1] + 1}{stride}):"]
    return filled(f"{head}(", list(map(str, numbers)), "):", BODY, ", ")


FILTERS = {
    "about_kernels": about_kernels,
    "about_layer": about_layer,
    "comment": one_line,
    "construction": lambda entries: construction(entries, BODY),
    "flat": flat,
    "import_of": import_of,
    "laid_out": laid_out,
    "literal": repr,
    "module_lines": module_lines,
    "sharing_lines": sharing_lines,
    "statement_lines": statement_lines,
}
