"""What to say about a word that the grammar does not allow: in terms of the language, not of its
grammar, and with the way out where the mistake is a common one."""

from __future__ import annotations

from typing import NamedTuple

from ..diagnostics import Diagnostics, Note
from ..diagnostics.suggest import did_you_mean
from ..source import Source, Span
from .layout import ASSIGNS, HEADS, OPERANDS, OPERATORS, SOFT, heads_statement
from .table import END, EOF, load
from .tokens import Token, quote

NAMES = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "_DOT": "`.`",
    END: "the end of the line",
    EOF: "the end of the file",
    **{kind: f"`{word}`" for word, kind in SOFT.items()},
}
STARTS_EXPRESSION = frozenset(
    {"NAME", "NUMBER", "STRING", "TRUE", "FALSE", "LPAR", "LSQB", "MINUS"}
)
# Always possible behind an operand, so worth a word only if nothing else is.
GOES_ON = OPERATORS - {"_RANGE"} | {"LPAR", "LSQB", "_DOT", "IN", "COLON"}
ENDS = frozenset({END, EOF, "RBRACE", "LBRACE", "RPAR", "RSQB"}) | ASSIGNS | HEADS

WHERE = {
    "": "at the top level",
    "MODEL": "inside a model",
    "_BLOCK": "inside a block",
    "_RECURRENCE": "inside a recurrence",
}
BELONGS = {
    "PARAM": "it belongs inside a model",
    "_STATE": "it belongs inside a recurrence",
    "OPERAND": "it belongs inside a recurrence",
    "LET": "it belongs at the top level or inside a model",
    "NAME": "a field belongs inside a model; a definition starts with `let`",
}
PYTHON = {
    "def": "a function is written `let f(x) = ...`",
    "lambda": "a function is written `let f(x) = ...`",
    "class": "a model is written `model name { ... }`",
    "for": "there are no loops: `[a, b] * 12` repeats a list",
    "while": "there are no loops: `[a, b] * 12` repeats a list",
    "if": "there are no conditions: write one definition for each case",
    "from": 'an import is written `import "file.mix"`',
    "return": "the value of a definition stands behind its `=`",
}


class Mistake(NamedTuple):
    """The word at `at` is none of the `expected` kinds. `body` is the keyword of the body it
    stands in, `open` the innermost open bracket of its statement."""

    source: Source
    words: list[Token]
    at: int
    expected: set[str]
    body: str
    open: Token | None

    @property
    def word(self) -> Token:
        return self.words[self.at]

    @property
    def before(self) -> Token | None:
        return self.words[self.at - 1] if self.at else None

    @property
    def heads(self) -> bool:
        return self.before is None or self.before.kind in {END, "LBRACE"}

    @property
    def span(self) -> Span:
        """The word; for the end of a line or of the file, the place behind the last word."""
        if self.before is not None and not self.word.text.strip():
            return Span(self.source, self.before.end, self.before.end)
        return Span(self.source, self.word.start, self.word.end)


def explain(mistake: Mistake, unclosed: set[int], diagnostics: Diagnostics) -> None:
    """Report `mistake`."""
    if mistake.heads and heads_statement(mistake.words, mistake.at):
        _misplaced(mistake, diagnostics)
    elif mistake.open and mistake.open.start in unclosed and mistake.word.kind in ENDS:
        bracket = Span(mistake.source, mistake.open.start, mistake.open.end)
        message = f"`{mistake.open.text}` is not closed: {_expected_found(mistake)}"
        note = Note("it must be closed before this", mistake.span)
        diagnostics.add("MX103", bracket, message, notes=(note,))
    else:
        diagnostics.add("MX102", mistake.span, _expected_found(mistake), help=_help(mistake))


def _misplaced(mistake: Mistake, diagnostics: Diagnostics) -> None:
    word = mistake.word
    what = quote(word.text)
    if word.kind == "NAME":
        op = mistake.words[mistake.at + 1].text
        what = f"`{word.text}[...]`" if op == "[" else f"`{word.text} {op} ...`"
    message = f"{what} does not belong {WHERE[mistake.body]}"
    help = BELONGS.get(word.kind, "it belongs at the top level")
    diagnostics.add("MX106", mistake.span, message, help=help)


def _expected_found(mistake: Mistake) -> str:
    return f"expected {_one_of(mistake)}, found {_found(mistake)}"


def _found(mistake: Mistake) -> str:
    word = mistake.word
    if word.text.strip():
        return quote(word.text)
    last = word.kind == EOF or mistake.words[mistake.at + 1].kind == EOF
    return NAMES[EOF] if last else NAMES[END]


def _one_of(mistake: Mistake) -> str:
    """The kinds that could stand here, as a reader would say them."""
    if mistake.heads:
        return "a statement"
    kinds = mistake.expected & (load().literals.keys() | NAMES.keys())
    said = []
    if kinds >= STARTS_EXPRESSION:
        kinds -= STARTS_EXPRESSION
        said.append("an expression")
    kinds = kinds - GOES_ON or kinds
    if END in kinds or EOF in kinds:
        kinds -= {END, EOF, "RBRACE"}
        said.append(NAMES[END])
    if kinds & {"RPAR", "COMMA"}:
        kinds -= ASSIGNS  # the `=` of a named argument
    said = sorted(map(_name, kinds), key=lambda name: (name == "`,`", len(name), name)) + said
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def _name(kind: str) -> str:
    return NAMES.get(kind) or f"`{load().literals[kind]}`"


def _help(mistake: Mistake) -> str | None:
    word, expected = mistake.word, mistake.expected
    if mistake.heads and word.kind in OPERATORS:
        return "a line goes on if it ends with its operator, or inside parentheses"
    if "NAME" in expected and word.kind in load().keywords.values() and word.kind not in expected:
        return f"{quote(word.text)} is a reserved word"
    if expected == {"STRING"}:
        return 'an import is written `import "file.mix"`'
    if word.kind == "COLON" and "RSQB" in expected:
        return "slices stand in `layers[...] = ...` alone"
    if word.kind == "LSQB":
        return "only `layers[...] = ...` takes an index"
    if word.kind == "_RANGE":
        return "a range stands behind the `in` of a parameter"
    return _foreign(mistake)


def _foreign(mistake: Mistake) -> str | None:
    """Help for a word of Python, or a misspelt keyword, at the head of the statement."""
    for word in (mistake.word, mistake.before):
        if word is not None and word.text in PYTHON:
            return PYTHON[word.text]
    head = mistake.word if mistake.heads else mistake.before
    if head is None or head.kind != "NAME" or mistake.word.kind not in {"NAME", "STRING"}:
        return None
    return did_you_mean(head.text, ["import", "let", "model", "param", *SOFT, *OPERANDS])
