"""What a token does, as the steps forward and the steps of its gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from .program import Program, Reader, Unsupported

Axes = tuple[str, ...]
Named = tuple[tuple[str, Axes], ...]
"""Names with their axes."""

OUTPUT = "o"


@dataclass(frozen=True)
class Equations:
    """The states, the operands, and the lines of a rule, in Python's syntax."""

    states: Named
    operands: Named
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """moved, o: the states and the output after a token. gradients: of the operands and of the
    states before it, from those of `d_o` and of `d_NAME`, the states after it."""

    equations: Equations
    program: Program = field(compare=False)
    moved: dict[str, int] = field(compare=False)
    o: int
    gradients: dict[str, int] = field(compare=False)

    @property
    def forward(self) -> list[int]:
        return self.program.needed([*self.moved.values(), self.o])

    @property
    def separable(self) -> bool:
        """Whether channels of values go their ways apart from one another."""
        return all(self.program.steps[x].op != "sum_value" for x in self.forward)


@cache
def steps_of(equations: Equations) -> Steps:
    """Raises Unsupported where steps cannot say what the equations do."""
    program = Program()
    reader = Reader(program, dict((*equations.states, *equations.operands)))
    for line in equations.lines:
        reader.line(line)
    moved = {name: reader.step(name) for name, _ in equations.states}
    o = reader.step(OUTPUT)
    gradients = _gradients(program, equations, moved, o)
    return Steps(equations, program, moved, o, gradients)


def _gradients(
    program: Program, equations: Equations, moved: dict[str, int], o: int
) -> dict[str, int]:
    seeds = {o: program.input(f"d_{OUTPUT}", ("value",))}
    for name, axes in equations.states:
        d = program.input(f"d_{name}", axes)
        x = moved[name]
        seeds[x] = program.both("add", seeds[x], d) if x in seeds else d
    inputs = {name: program.input(name, axes)
              for name, axes in (*equations.states, *equations.operands)}  # fmt: skip
    found = program.gradient(seeds, inputs.values())
    return {name: found[x] for name, x in inputs.items()}


__all__ = ["OUTPUT", "Equations", "Named", "Steps", "Unsupported", "steps_of"]
