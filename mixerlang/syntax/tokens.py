"""Text to tokens, without loss: joining the texts of the tokens gives back the source.

The patterns are those of grammar/mix.lark. What they do not read is reported here, and stands in
for what was probably meant, so that the parser can go on behind it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ..diagnostics import Diagnostics
from ..source import Source, Span
from .table import load


class Token(NamedTuple):
    """`faulty` marks a token that was reported, or that follows a skipped character."""

    kind: str
    text: str
    start: int
    faulty: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.text)


UNKNOWN = "UNKNOWN"
TRIVIA = frozenset({"SPACE", "COMMENT", UNKNOWN})

# Operators of other languages: what the parser reads in their place, and the way out.
FOREIGN = {
    ":=": ("EQUAL", "write `=`"),
    "==": ("EQUAL", "there are no comparisons; a definition is written with `=`"),
    "**": ("STAR", "there are no powers; multiply"),
    "&&": ("AMPERSAND", "write `&`"),
    "||": ("BAR", "write `|`"),
    "-=": ("PLUS_EQUAL", "write `x += -1 * ...`"),
    "*=": ("PLUS_EQUAL", "write `x = x * ...`"),
    "×": ("STAR", "write `*`"),
    "−": ("MINUS", "write `-`"),
    "–": ("MINUS", "write `-`"),
}

# Tried where no pattern of the grammar matches, in this order.
FAULTS = {
    "BAD_NUMBER": r"\.?[0-9](?:[eE][+-][0-9]|\w|\.(?!\.))*",
    "BAD_STRING": r"\"[^\n]*|'[^'\n]*'?|“[^”\n]*”?",
    "BAD_NAME": r"[^\W\d]\w*",
    UNKNOWN: r"(?P<_char>[\s\S])(?P=_char)*",
}


def tokenize(source: Source, diagnostics: Diagnostics) -> list[Token]:
    """All tokens of `source`, comments, blanks and skipped characters included."""
    keywords = load().keywords
    tokens: list[Token] = []
    for match in _pattern().finditer(source.text):
        kind, text, start = match.lastgroup or UNKNOWN, match[0], match.start()
        if kind == "NAME":
            tokens.append(Token(keywords.get(text, kind), text, start))
        elif kind in FAULTS or kind == "FOREIGN":
            tokens.append(_fault(kind, Span(source, start, match.end()), diagnostics))
        else:
            tokens.append(Token(kind, text, start))
    return tokens


@cache
def _pattern() -> re.Pattern[str]:
    foreign = "|".join(map(re.escape, FOREIGN))
    groups = [("FOREIGN", foreign), *load().terminals, *FAULTS.items()]
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in groups))


def _fault(kind: str, span: Span, diagnostics: Diagnostics) -> Token:
    """Report what is wrong at `span`; the token that takes its place."""
    text = span.text
    match kind:
        case "FOREIGN":
            kind, help = FOREIGN[text]
            diagnostics.add("MX101", span, f"`{text}` is not part of the language", help=help)
        case "BAD_NUMBER":
            kind, help = "NUMBER", "write digits on both sides of the point, `_` between digits"
            diagnostics.add("MX104", span, f"malformed number {quote(text)}", help=help)
        case "BAD_STRING":
            kind = "STRING"
            _bad_string(text, span, diagnostics)
        case "BAD_NAME":
            kind, help = "NAME", "names are ASCII letters, digits and `_`"
            diagnostics.add("MX101", span, f"{quote(text)} is not a name", help=help)
        case _:
            message = f"{quote(text[0])} is not part of the language"
            diagnostics.add("MX101", span, message, help=_look_alike(text[0]))
    return Token(kind, text, span.start, True)


def _bad_string(text: str, span: Span, diagnostics: Diagnostics) -> None:
    if text[0] == '"':
        diagnostics.add("MX105", span, "string is not closed", help='end it with `"` on its line')
    else:
        help = 'strings stand in double quotes: `"..."`'
        diagnostics.add("MX105", span, f"string in {quote(text[0])} quotes", help=help)


def _look_alike(char: str) -> str | None:
    if char.isspace() or char in "\u200b\ufeff":
        return "replace it by a space"
    return "there are no dictionaries, conditions or exponents" if char in "<>%^!?" else None


def quote(text: str, limit: int = 40) -> str:
    """`text` for a message: cut, and as code points if it cannot be shown."""
    if text.isprintable():
        return f"`{text}`" if len(text) <= limit else f"`{text[:limit]}...`"
    return "character " + " ".join(f"U+{ord(char):04X}" for char in text[:4])
