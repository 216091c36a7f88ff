"""Words to the AST: a LALR driver over the serialized table, with recovery by statement.

Every broken statement is reported once and left out; everything else is in the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..diagnostics import LIMIT, Diagnostics, Note
from ..source import Source, Span
from . import ast
from .builder import Builder
from .layout import NEST, Layout, arrange
from .messages import Mistake, explain
from .table import END, EOF, ERROR, Rule, load
from .tokens import Token, tokenize

SIZE = 128 * 1024
"""Bytes of one file."""
HEIGHT = 200
"""Nodes of the tree inside one another in an expression: `a + b + c` is two high, `f(g(x))` four.
Walkers that recurse a few frames a node stay within Python's own limit."""

RAISING = frozenset({"binary", "negation", "call", "argument", "attribute", "list"})
"""The rules that make an expression higher."""
BODIES = frozenset({"MODEL", "_BLOCK", "_RECURRENCE"})


def parse(source: Source) -> tuple[ast.File, Diagnostics]:
    """The tree of what is sound in `source`, and all that is wrong with its syntax."""
    diagnostics = Diagnostics()
    if _is_too_large(source.text):
        help = f"a file holds at most {SIZE // 1024} KiB; move definitions to a file to import"
        diagnostics.add("MX003", Span(source, 0, 0), "file is too large", help=help)
        return ast.File(Span(source, 0, len(source.text)), ()), diagnostics
    layout = arrange(tokenize(source, diagnostics))
    return _Parser(source, layout, diagnostics).run(), diagnostics


def _is_too_large(text: str) -> bool:
    return len(text) > SIZE or len(text.encode("utf-8", "surrogatepass")) > SIZE


class _Piece(NamedTuple):
    """What a symbol on the stack stands for: a token, or what the builder made of a rule."""

    value: Any
    start: int
    end: int
    height: int


class _Parser:
    def __init__(self, source: Source, layout: Layout, diagnostics: Diagnostics) -> None:
        self.source = source
        self.layout = layout
        self.words = layout.words
        self.diagnostics = diagnostics
        self.rules = load().rules
        self.table = load().states
        self.builder = Builder(source, diagnostics)
        self.states = [0]
        self.pieces: list[_Piece] = []
        self.nest = 0

    def run(self) -> ast.File:
        at = 0
        while True:
            word = self.words[at]
            action = self.table[self.states[-1]].get(word.kind)
            if action is None:
                at = self._unexpected(at)
            elif action >= 0:
                at = self._shift(at, word, action)
            elif not self._reduce(self.rules[~action]):
                at = self._too_high(at)
            elif word.kind == EOF and self.states[-1] == load().end:
                file: ast.File = self.pieces[-1].value
                return file

    # --- the automaton ------------------------------------------------------------------------

    def _shift(self, at: int, word: Token, state: int) -> int:
        if word.kind in {"LPAR", "LSQB"}:
            self.nest += 1
            if self.nest > NEST:
                return self._too_deep(at)
        elif word.kind in {"RPAR", "RSQB"}:
            self.nest -= 1
        elif word.kind == "RBRACE" and not word.text:
            self._unclosed_body(at)
        self.states.append(state)
        self.pieces.append(_Piece(word, word.start, word.end, 0))
        return at + 1

    def _reduce(self, rule: Rule) -> bool:
        """Put what `rule` makes of its symbols in their place; False if that is too high."""
        states = self.states
        if rule.action is None and rule.length == 1:  # most steps: one precedence to the next
            states[-1] = self.table[states[-2]][rule.origin]
            return True
        piece = self._make(rule, self.pieces[len(self.pieces) - rule.length :])
        if piece.height > HEIGHT:
            return False
        del states[len(states) - rule.length :]
        del self.pieces[len(self.pieces) - rule.length :]
        states.append(self.table[states[-1]][rule.origin])
        self.pieces.append(piece)
        return True

    def _make(self, rule: Rule, pieces: list[_Piece]) -> _Piece:
        start, end = (pieces[0].start, pieces[-1].end) if pieces else (0, 0)
        height = max((piece.height for piece in pieces), default=0) + (rule.action in RAISING)
        if height > HEIGHT:
            return _Piece(None, start, end, height)
        parts = _parts(rule, pieces)
        if rule.action is None:
            return _Piece(parts[0], start, end, height)
        if rule.action == "":
            return _Piece(parts, start, end, height)
        value = getattr(self.builder, rule.action)(Span(self.source, start, end), *parts)
        return _Piece(value, start, end, height)

    def _accepts(self, states: list[int], *kinds: str) -> bool:
        """Whether the automaton in these states would read words of these kinds."""
        states = states.copy()
        for kind in kinds:
            while (action := self.table[states[-1]].get(kind)) is not None and action < 0:
                rule = self.rules[~action]
                del states[len(states) - rule.length :]
                states.append(self.table[states[-1]][rule.origin])
                if kind == EOF and states[-1] == load().end:
                    return True
            if action is None:
                return False
            states.append(action)
        return True

    # --- mistakes and the way on --------------------------------------------------------------

    def _unexpected(self, at: int) -> int:
        if not self._is_reported(at):
            row = self.table[self.states[-1]]
            expected = {kind for kind in row if self._accepts(self.states, kind)}
            mistake = Mistake(self.source, self.words, at, expected, self._body(), self._open())
            explain(mistake, self.layout.unclosed, self.diagnostics)
        if self._open_body(at):
            return at
        return self._recover(at)

    def _too_deep(self, at: int) -> int:
        message = f"brackets nest more than {NEST} deep"
        help = "name the inner parts with `let`"
        self.diagnostics.add("MX010", self._span(at), message, help=help)
        return self._recover(at)

    def _too_high(self, at: int) -> int:
        message = f"expression is more than {HEIGHT} levels deep"
        help = "name parts with `let`, or repeat lists with `* n`"
        self.diagnostics.add("MX010", self._span(at - 1), message, help=help)
        return self._recover(at, whole=True)

    def _unclosed_body(self, at: int) -> None:
        brace = next(p for p in reversed(self.pieces) if _kind(p) == "LBRACE")
        note = Note("a `}` is missing before this", self._span(at))
        span = Span(self.source, brace.start, brace.end)
        self.diagnostics.add("MX103", span, "`{` is not closed", notes=(note,))

    def _open_body(self, at: int) -> bool:
        """Put a missing `{` at the end of a line, if there is a `}` for it."""
        word = self.words[at]
        stray = next((i for i in self.layout.strays if i > at), None)
        if word.kind != END or stray is None or not self._accepts(self.states, "LBRACE"):
            return False
        self.words[at] = Token("LBRACE", "", word.start, True)
        self.layout.partners[at] = stray
        self.layout.strays.remove(stray)
        return True

    def _recover(self, at: int, whole: bool = False) -> int:
        """Skip to where the parser can go on; the position of that word.

        What stands complete before the mistake is kept, unless the `whole` statement is wrong.
        Else the broken part gives way to _ERROR.
        """
        self.nest = 0
        for i in self._landmarks(at):
            kind = self.words[i].kind
            if not whole and i > at and self._accepts(self.states, kind):
                return i
            for size in self._sizes(kind):
                action = self.table[self.states[size - 1]].get(ERROR)
                if action is not None and self._accepts(self.states[:size], ERROR, kind):
                    self._replace(size, action, self.words[i].start)
                    return i
        raise AssertionError("a broken statement at the end of a file is a file")

    def _landmarks(self, at: int) -> Iterator[int]:
        """The ends of statements and bodies from `at` on, outside brackets and inner bodies."""
        if len(self.diagnostics) > LIMIT:
            at = len(self.words) - 1
        while at < len(self.words):
            kind = self.words[at].kind
            if kind in {END, "LBRACE", "RBRACE", EOF} and not self.layout.depths[at]:
                yield at
            at = self.layout.partners.get(at, at) + 1

    def _sizes(self, kind: str) -> Iterator[int]:
        """How many states recovery may keep: all those of the body it is in, save at the end."""
        for size in range(len(self.states), 0, -1):
            yield size
            if size > 1 and kind != EOF and _kind(self.pieces[size - 2]) == "LBRACE":
                return

    def _replace(self, size: int, action: int, start: int) -> None:
        """Put _ERROR in the place of all but the first `size` states."""
        del self.states[size:]
        del self.pieces[size - 1 :]
        self.states.append(action)
        self.pieces.append(_Piece(None, start, start, 0))

    # --- what a message needs -----------------------------------------------------------------

    def _is_reported(self, at: int) -> bool:
        """Whether something in this statement, up to this word, was reported by the lexer."""
        while not self.words[at].faulty:
            at -= 1
            if at < 0 or self.words[at].kind in {END, "LBRACE", "RBRACE"}:
                return False
        return True

    def _body(self) -> str:
        """The keyword of the body we are in, or "" at the top of the file."""
        return next((_kind(p) for p in reversed(self.pieces) if _kind(p) in BODIES), "")

    def _open(self) -> Token | None:
        """The innermost bracket that is still open in this statement."""
        for piece in reversed(self.pieces):
            if _kind(piece) in {"LPAR", "LSQB"}:
                token: Token = piece.value
                return token
            if _kind(piece) in {END, "LBRACE"}:
                break
        return None

    def _span(self, at: int) -> Span:
        return Span(self.source, self.words[at].start, self.words[at].end)


def _kind(piece: _Piece) -> str:
    return piece.value.kind if isinstance(piece.value, Token) else ""


def _parts(rule: Rule, pieces: list[_Piece]) -> list[Any]:
    """What the builder gets. A helper's list that comes first is taken over, not copied: lists
    grow from the left, and copying would make long ones quadratic."""
    parts: list[Any] = []
    for take in rule.take:
        if take is None:
            parts.append(None)
        elif take >= 0:
            parts.append(pieces[take].value)
        elif parts:
            parts.extend(pieces[~take].value)
        else:
            parts = pieces[~take].value
    return parts
