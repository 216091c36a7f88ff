"""Arguments to the names they are for."""

from __future__ import annotations

from collections.abc import Sequence

from ..diagnostics.suggest import did_you_mean
from ..syntax import ast
from .report import Reporter


def match(
    report: Reporter, what: str, order: Sequence[str], given: Sequence[ast.Argument]
) -> list[tuple[str | None, ast.Argument]]:
    """Each argument with its name, None for one that was refused.

    Positional arguments take the names in order.
    """
    places: list[tuple[str | None, ast.Argument]] = []
    free = iter(order)
    taken: set[str] = set()
    for argument in given:
        name: str | None
        if argument.name is None:
            name = next(free, None)
            if name is None:
                _too_many(report, what, order, argument)
        else:
            name = argument.name.id
            if name not in order:
                _unknown(report, what, order, argument.name)
                name = None
        if name in taken:
            report("MX305", argument.span, f"{what} is given `{name}` twice")
            name = None
        if name is not None:
            taken.add(name)
        places.append((name, argument))
    return places


def _too_many(
    report: Reporter, what: str, order: Sequence[str], argument: ast.Argument
) -> None:
    count = f"at most {len(order)} argument{'s' if len(order) > 1 else ''}"
    report("MX304", argument.span, f"{what} takes {count if order else 'no arguments'}",
           help=f"it takes {', '.join(order)}" if order else None)


def _unknown(report: Reporter, what: str, order: Sequence[str], name: ast.Name) -> None:
    def help() -> str:
        return did_you_mean(name.id, order) or f"it takes {', '.join(order) or 'no arguments'}"

    report("MX202", name.span, f"{what} has no argument `{name.id}`", help=help)
