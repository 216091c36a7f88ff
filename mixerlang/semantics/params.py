"""The params of a model: defaults, ranges, and values from outside."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..diagnostics.suggest import did_you_mean
from ..source import Source
from ..syntax import ast, parse
from .call import annotation
from .evaluate import Evaluator
from .expect import ANYTHING
from .files import printable
from .values import Env, Failed, Thunk


class Params:
    """Binds the params of one model in `env`. `settings`: values by name, as text or Python
    numbers; text is an expression of the language, and never anything else."""

    def __init__(self, evaluator: Evaluator, env: Env, settings: Mapping[str, Any]) -> None:
        self.evaluator = evaluator
        self.env = env
        self.settings = settings
        self.declared: dict[str, ast.Parameter] = {}

    def bind(self, model: ast.Model, broken: frozenset[str]) -> None:
        """broken: names of statements that the parser left out."""
        for item in model.items:
            if isinstance(item, ast.Param):
                self.declared.setdefault(item.parameter.name.id, item.parameter)
        for name in self.settings:
            if name not in self.declared and name not in broken:
                self._unknown(name, model.name.id)
        for name, parameter in self.declared.items():
            self.env.names.setdefault(name, self._thunk(name, parameter))

    def values(self) -> dict[str, object]:
        """Values in force, by name; those without one are left out."""
        found: dict[str, object] = {}
        for name in self.declared:
            thunk = self.env.names[name]
            try:
                found[name] = self._value(thunk) if isinstance(thunk, Thunk) else None
            except Failed:
                continue
        return found

    def _value(self, thunk: Thunk) -> object:
        """As it was used, or as it stands where nothing has used it; the text of what is neither
        number nor word."""
        if thunk.results:
            value = next(iter(thunk.results.values()))
        else:
            value = self.evaluator.force(thunk, ANYTHING, thunk.expr.span)
            thunk.used = False
        if isinstance(value, Fraction):
            return float(value)
        return value if isinstance(value, int | str) else thunk.expr.span.text

    def _unknown(self, name: str, model: str) -> None:
        def help() -> str:
            known = f"its params: {', '.join(self.declared)}" if self.declared else "it has none"
            return did_you_mean(name, self.declared) or known

        self.evaluator.report("MX208", None, f"model `{model}` has no param `{shown(name)}`",
                              help=help)

    def _thunk(self, name: str, parameter: ast.Parameter) -> Thunk:
        """A param that has no value fails wherever it is used, reported here."""
        expr = parameter.default
        if name in self.settings:
            expr = self._setting(name, self.settings[name])
        elif expr is None:
            self.evaluator.report("MX307", parameter.span, f"param `{name}` has no value",
                                  help=f"give it a default, or --set {name}=VALUE")
        return Thunk(expr or parameter.name, self.env, None, False, annotation(parameter),
                     parameter.range, span=parameter.name.span, failed=expr is None)

    def _setting(self, name: str, value: Any) -> ast.Expr | None:
        """A value from outside as an expression of its own source."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        file, problems = parse(Source(f"--set {name}", f"let {name} = {text}"))
        match file.statements:
            case (ast.Let(parameters=None, value=expr),):
                self.evaluator.report.diagnostics.extend(problems)
                return None if problems.errors else expr
        self.evaluator.report("MX301", None, f"the value set for `{name}` is not one expression: "
                              f"`{shown(text)}`", help=f"write it as in a spec: --set {name}=512")
        return None


def shown(text: str) -> str:
    """Text from outside for a message: cut, on one line."""
    return printable(text[:60]) + ("..." if len(text) > 60 else "")
