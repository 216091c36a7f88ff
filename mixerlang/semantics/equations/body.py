"""The lines of a recurrence in order: what they give, and whether they give all there must be."""

from __future__ import annotations

from dataclasses import dataclass

from ...diagnostics import Note
from ...source import Span
from ...syntax import ast
from ..report import Reporter
from ..values import Failed
from .check import Checker
from .declared import GIVEN, Declared
from .node import IDENTITY, OUTPUT, Line, Node, shown

OUTPUT_AXES = ("value",)


@dataclass(frozen=True)
class Body:
    """The checked equations of a recurrence."""

    found: Declared
    lines: tuple[Line, ...]

    def reads(self) -> set[str]:
        """Operands, states and earlier lines that some line reads."""
        nodes = (node for line in self.lines for node in line.node.walk())
        return {node.name for node in nodes if node.op == "name"}


class Reader:
    """Reads the lines of one recurrence. Raises Failed, having reported."""

    def __init__(self, rule: ast.RecurrenceDef, checker: Checker, report: Reporter) -> None:
        self.rule = rule
        self.checker = checker
        self.found = checker.found
        self.report = report
        self.places: dict[str, Span] = {}
        self.failed = not self.found.sound

    def body(self) -> Body:
        lines = []
        for statement in self.rule.body:
            if isinstance(statement, ast.Assign):
                try:
                    lines.append(self._line(statement))
                except Failed:
                    self.failed = True
                    self._assume(statement.target)
        if not self.failed:
            self._complete()
        if self.failed:
            raise Failed
        body = Body(self.found, tuple(lines))
        if not needed_names(body.lines) & self.found.states.keys():
            self.checker.fail(
                "MX410",
                self.places[OUTPUT],
                "`o` reads no state, so nothing passes from token to token",
                "read one: o = S.T @ q",
            )
        self._unused(body)
        return body

    def _wrong(self, code: str, span: Span, message: str, help: str | None = None) -> None:
        self.failed = True
        self.report(code, span, message, help=help)

    def _assume(self, target: ast.Name) -> None:
        """A name whose line has been reported is still a name."""
        name = target.id
        self.places.setdefault(name, target.span)
        if name in self.found.states or name in self.checker.lines:
            return
        axes = OUTPUT_AXES
        self.checker.lines[name] = Node("name", axes, target.span, name=name)

    # -------------------------------------------------------------------------------- one line

    def _line(self, line: ast.Assign) -> Line:
        name = line.target.id
        self._target(line)
        value = line.value
        if line.op == "+=":
            before = ast.Name(line.target.span, name)
            value = ast.Binary(line.span, "+", before, line.value)
        node = self.checker.expression(value)
        self._shape(name, node, line)
        if name in self.found.states:
            self._linear(node)
        else:
            self.checker.lines[name] = node
        self.places.setdefault(name, line.target.span)
        return Line(name, node, line.span)

    def _target(self, line: ast.Assign) -> None:
        name, span = line.target.id, line.target.span
        if name in GIVEN or name in self.found.operands or name == IDENTITY:
            self.checker.fail(
                "MX205", span, f"`{name}` comes with each token", "give the new value another name"
            )
        if name in self.found.parameters:
            self.checker.fail(
                "MX205",
                span,
                f"`{name}` is a parameter of this recurrence",
                "give the new value another name",
            )
        if name == OUTPUT and line.op == "=" and name in self.places:
            notes = (Note("the first time", self.places[name]),)
            self.report("MX204", span, "`o` is given twice", notes=notes)
            raise Failed

    def _shape(self, name: str, node: Node, line: ast.Assign) -> None:
        wanted = self.found.states.get(name, OUTPUT_AXES if name == OUTPUT else node.axes)
        if node.axes != wanted:
            help = "read a state with q: o = S.T @ q" if name == OUTPUT else None
            if len(node.axes) == 2 and node.axes == wanted[::-1]:
                help = "`.T` swaps the axes of a matrix"
            self.checker.fail(
                "MX401",
                line.value.span,
                f"`{name}` is {shown(wanted)}, and this {shown(node.axes)}",
                help,
            )

    def _linear(self, node: Node) -> None:
        if node.obstacle is not None:
            self.checker.fail(
                "MX502",
                node.obstacle.span,
                f"{node.obstacle.reason} cannot be done: a state must stay linear in the states",
                "leave it out of what a state becomes; what is read, o, may be any function of it",
            )

    # ------------------------------------------------------------------------------- the whole

    def _complete(self) -> None:
        name = self.rule.name
        if not self.found.states:
            self._wrong(
                "MX410",
                name.span,
                f"recurrence `{name.id}` has no state",
                "declare one: state S[key, value]",
            )
        still = [state for state in self.found.states if state not in self.places]
        for state in still:
            self._wrong(
                "MX410",
                self.found.places[state],
                f"no line says what `{state}` becomes",
                f"write {state} = ...",
            )
        if OUTPUT not in self.places:
            self._wrong(
                "MX410",
                name.span,
                f"recurrence `{name.id}` does not give `o`",
                "what a token reads is its o: write o = S.T @ q",
            )

    def _unused(self, body: Body) -> None:
        """Warn of what the output does not depend on."""
        needed = needed_names(body.lines)
        for name, span in {**self.places, **self.found.places}.items():
            if name != OUTPUT and name not in needed and name not in self.found.parameters:
                self.report("MX210", span, f"`{name}` is never used by what `o` reads")


def needed_names(lines: tuple[Line, ...]) -> set[str]:
    """States, operands and lines that o depends on, at any token."""
    reads: dict[str, set[str]] = {}
    for line in lines:
        names = {node.name for node in line.node.walk() if node.op == "name"}
        reads.setdefault(line.target, set()).update(names)
    needed: set[str] = set()
    stack = [OUTPUT]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(reads.get(name, ()))
    return needed
