"""Make table.json from grammar/mix.lark, so that no program pays for lark at start.

Run `python -m mixerlang.syntax.build_table` after a change of the grammar; a test holds the two
together. Lark reads the grammar and computes the LALR table; nothing else imports lark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lark import Lark
from lark.common import ParserConf
from lark.grammar import Rule, Symbol
from lark.lexer import PatternStr, TerminalDef, Token
from lark.parsers.lalr_analysis import LALR_Analyzer, ParseTableBase, Reduce

from .table import PATH, START

GRAMMAR = Path(__file__).parents[1] / "grammar" / "mix.lark"


class _Unfiltered:
    """Stands in for layout.py: building tables lexes nothing."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        return stream


def build() -> str:
    """The text of table.json for the grammar as it is now."""
    grammar = Lark(
        GRAMMAR.read_text("utf-8"), parser="lalr", lexer="basic", start=START, postlex=_Unfiltered()
    )
    rules = {rule: i for i, rule in enumerate(grammar.rules)}
    # `strict` makes a shift/reduce conflict an error; lark alone would shift silently.
    analyzer: Any = LALR_Analyzer(ParserConf(grammar.rules, {}, [START]), strict=True)
    analyzer.compute_lalr()
    states, end = _states(analyzer.parse_table, rules)
    terminals = list(grammar.terminals)
    return _dump(
        {
            "terminals": [[t.name, t.pattern.to_regexp()] for t in _regexes(terminals)],
            "keywords": dict(_keywords(terminals)),
            "literals": {t.name: t.pattern.value for t in _literals(terminals)},
            "rules": [[r.origin.name, len(r.expansion), _action(r), _take(r)] for r in rules],
            "end": end,
            "states": states,
        }
    )


def _literals(terminals: list[TerminalDef]) -> list[TerminalDef]:
    return sorted((t for t in terminals if isinstance(t.pattern, PatternStr)), key=lambda t: t.name)


def _keywords(terminals: list[TerminalDef]) -> Iterator[tuple[str, str]]:
    """The literals that the pattern of NAME would read: the reserved words."""
    name = next(t for t in terminals if t.name == "NAME").pattern.to_regexp()
    for terminal in _literals(terminals):
        if re.fullmatch(name, terminal.pattern.value):
            yield terminal.pattern.value, terminal.name


def _regexes(terminals: list[TerminalDef]) -> list[TerminalDef]:
    """All but the reserved words, in the order of lark's basic lexer: the first match wins."""
    reserved = {kind for _, kind in _keywords(terminals)}
    return sorted(
        (t for t in terminals if t.name not in reserved),
        key=lambda t: (-t.priority, -t.pattern.max_width, -len(t.pattern.value), t.name),
    )


def _action(rule: Rule) -> str | None:
    """The builder's method for a rule; "" for a helper whose parts its parent takes in; None for
    a rule that hands its one part on."""
    if rule.origin.name.startswith("_"):
        return ""
    if rule.alias:
        return str(rule.alias)
    return None if rule.options.expand1 else str(rule.origin.name)


def _take(rule: Rule) -> list[int | None]:
    """What the action gets: i is the i-th symbol, ~i the parts of a helper, None an absent part."""
    absent = list(rule.options.empty_indices) or [False] * len(rule.expansion)
    symbols = iter(enumerate(rule.expansion))
    taken: list[int | None] = []
    for missing in absent:
        if missing:
            taken.append(None)
            continue
        i, symbol = next(symbols)
        if not _dropped(symbol):
            helper = not symbol.is_term and symbol.name.startswith("_")
            taken.append(~i if helper else i)
    return taken


def _dropped(symbol: Symbol) -> bool:
    return bool(symbol.is_term and symbol.filter_out)  # type: ignore[attr-defined]


def _states(table: ParseTableBase[Any], rules: dict[Rule, int]) -> tuple[list[dict[str, int]], int]:
    """Actions per state: a state to go to, or ~rule to reduce. Numbered breadth first from the
    start over sorted symbols, because lark's own numbers differ from run to run."""
    order = [table.start_states[START]]
    number = {order[0]: 0}
    rows: list[dict[str, int]] = []
    for state in order:
        row: dict[str, int] = {}
        for symbol, (action, target) in sorted(table.states[state].items()):
            if action is Reduce:
                row[symbol] = ~rules[target]
                continue
            if target not in number:
                number[target] = len(order)
                order.append(target)
            row[symbol] = number[target]
        rows.append(row)
    return rows, number[table.end_states[START]]


def _dump(table: dict[str, Any]) -> str:
    """JSON with one entry of a list a line, so that a change of the grammar reads as a diff."""
    parts = []
    for key, value in table.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in value)
            parts.append(f'"{key}": [\n{lines}\n]')
        else:
            parts.append(f'"{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(build(), "utf-8")
