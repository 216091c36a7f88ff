"""What the equations of a recurrence may name: states, operands, parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...diagnostics import Note
from ...diagnostics.suggest import did_you_mean
from ...primitives.recurrence import Recurrence
from ...source import Span
from ...syntax import ast
from ..expect import fields_of
from ..report import Reporter
from .node import AXES, IDENTITY, OUTPUT, Axes

GIVEN: dict[str, tuple[str, Axes]] = {
    "q": ("query", ("key",)),
    "k": ("key", ("key",)),
    "v": ("value", ("value",)),
    "a": ("decay", ()),
    "b": ("gate", ()),
    "dt": ("step", ()),
}
"""What every recurrence has: how it is made, and its axes."""

SHAPED = {"a": "decay", "b": "gate"}
"""Given names that may be declared with axes, and as what."""

DECIDED = frozenset({"update", "normalizer", "skip"})
"""Fields of `recurrence` that the equations decide."""

MADE_OF = {"key": ("key",), "value": ("value",)}
"""Kinds of operands that have their axis by themselves."""


@dataclass(frozen=True, slots=True)
class Operand:
    """What a token brings. span: of its declaration, None for a given one."""

    name: str
    made: str
    axes: Axes
    span: Span | None = None


@dataclass
class Declared:
    """The names of one recurrence. sound: whether nothing was reported."""

    states: dict[str, Axes] = field(default_factory=dict)
    operands: dict[str, Operand] = field(default_factory=dict)
    parameters: dict[str, ast.Parameter] = field(default_factory=dict)
    places: dict[str, Span] = field(default_factory=dict)
    sound: bool = True

    @property
    def names(self) -> set[str]:
        return {*self.states, *self.operands, *self.parameters, IDENTITY}


def declared(rule: ast.RecurrenceDef, report: Reporter) -> Declared:
    """The declarations of a recurrence; what is wrong with them is reported."""
    return _Reader(rule, report).found


def fields(operands: dict[str, Operand]) -> tuple[str, ...]:
    """What a call may give beside parameters: fields of `recurrence`, and decays of its own."""
    own = [name for name, each in operands.items() if each.made == "decay" and name != "a"]
    return (*(name for name in fields_of(Recurrence) if name not in DECIDED), *own)


class _Reader:
    def __init__(self, rule: ast.RecurrenceDef, report: Reporter) -> None:
        self.report = report
        self.found = Declared()
        self.found.operands = {name: Operand(name, *given) for name, given in GIVEN.items()}
        for each in rule.parameters or ():
            if self._free(each.name):
                self.found.parameters[each.name.id] = each
        for line in rule.body:
            if isinstance(line, ast.State):
                self._state(line)
            elif isinstance(line, ast.Operand):
                self._operand(line)

    def _wrong(self, code: str, span: Span, message: str, help: str | None = None) -> None:
        self.found.sound = False
        self.report(code, span, message, help=help)

    def _free(self, name: ast.Name) -> bool:
        """Whether a name can be declared here."""
        if name.id in GIVEN or name.id in (IDENTITY, OUTPUT):
            self._wrong(
                "MX205",
                name.span,
                f"`{name.id}` is given in every recurrence",
                "choose another name",
            )
        elif name.id in fields_of(Recurrence):
            self._wrong(
                "MX205",
                name.span,
                f"`{name.id}` is a field of every recurrence",
                "choose another name",
            )
        elif name.id in self.found.places:
            self.found.sound = False
            notes = (Note("the first declaration", self.found.places[name.id]),)
            self.report("MX204", name.span, f"`{name.id}` is declared twice", notes=notes)
        else:
            self.found.places[name.id] = name.span
            return True
        return False

    def _axes(self, names: tuple[ast.Name, ...]) -> Axes | None:
        """Known axes, each once; None where they have been reported."""
        for name in names:
            if name.id not in AXES:
                self._wrong(
                    "MX201",
                    name.span,
                    f"unknown axis `{name.id}`, expected `key` or `value`",
                    did_you_mean(name.id, AXES),
                )
                return None
        found = tuple(name.id for name in names)
        if len(set(found)) < len(found):
            self._wrong(
                "MX401",
                names[0].span.to(names[-1].span),
                "each axis stands once here",
                "write S[key, value]; key_dim and value_dim may be equal",
            )
            return None
        return found

    def _state(self, line: ast.State) -> None:
        axes = self._axes(line.axes)
        if self._free(line.name):
            # A broken one is still a state, so that its uses are not told too.
            self.found.states[line.name.id] = axes or AXES

    def _operand(self, line: ast.Operand) -> None:
        name, axes = line.name.id, self._axes(line.axes)
        if axes is not None and line.axes and line.kind in MADE_OF:
            self._wrong(
                "MX401",
                line.span,
                f"a {line.kind} has its axis by itself",
                f"write {line.kind} {name}",
            )
        elif axes is not None and len(axes) > 1:
            self._wrong(
                "MX401",
                line.span,
                f"a {line.kind} has at most one axis",
                f"write {line.kind} {name}[key], or {name}[value]",
            )
        shaped = SHAPED.get(name) == line.kind and name not in self.found.places
        if shaped:
            self.found.places[name] = line.name.span
        if shaped or self._free(line.name):
            axes = MADE_OF.get(line.kind, axes or ())
            self.found.operands[name] = Operand(name, line.kind, axes, line.name.span)
