"""The lexer's patterns and the LALR table, as build_table.py wrote them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).with_name("table.json")
START = "file"

END = "_END"
ERROR = "_ERROR"
EOF = "$END"


class Rule(NamedTuple):
    """`origin` stands for the last `length` symbols. Of these `take` are handed to the builder's
    method `action`; "" makes a list that the parent takes in, None hands the one part on."""

    origin: str
    length: int
    action: str | None
    take: list[int | None]


class Table(NamedTuple):
    """`states[s][symbol]` is the next state, or ~i to reduce by rule i."""

    terminals: list[tuple[str, str]]
    keywords: dict[str, str]
    literals: dict[str, str]
    rules: list[Rule]
    end: int
    states: list[dict[str, int]]


@cache
def load() -> Table:
    table = json.loads(PATH.read_text("utf-8"))
    table["rules"] = [Rule(*rule) for rule in table["rules"]]
    return Table(**table)
