"""Tokens to the words of the parser: which newlines end a statement, which names are keywords.

What these decide takes more than one token, so it is done between lexer and parser. It is also
what makes recovery exact: brackets are paired before parsing, and a word that can only head a
statement, at the head of a line, ends whatever was left open before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .table import END, EOF
from .tokens import TRIVIA, UNKNOWN, Token

SOFT = {
    "mixer": "_MIXER",
    "block": "_BLOCK",
    "recurrence": "_RECURRENCE",
    "state": "_STATE",
}
OPERANDS = frozenset({"key", "value", "gate", "decay", "weight"})
"""What a recurrence may declare; words of the language in front of a name alone."""
TOP_LEVEL = frozenset({"IMPORT", "MODEL", "_MIXER", "_BLOCK", "_RECURRENCE"})
HEADS = TOP_LEVEL | {"LET", "PARAM", "_STATE", "OPERAND"}

PAIRS = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}
OPENERS = frozenset(PAIRS.values())
ASSIGNS = frozenset({"EQUAL", "PLUS_EQUAL"})
OPERATORS = frozenset(
    {"BAR", "AMPERSAND", "CHAIN", "PLUS", "MINUS", "STAR", "SLASH", "FLOOR", "AT", "_RANGE"}
)
# A newline behind one of these ends nothing.
CONTINUES = OPERATORS | ASSIGNS | {"COMMA", "LPAR", "LSQB", "LBRACE", "IN", END}

NEST = 100
"""Brackets may nest this deep."""


@dataclass
class Layout:
    """The words of a file; all numbers are positions in `words`."""

    words: list[Token] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    """Per word, the closed pairs of ( ) and [ ] around it."""
    partners: dict[int, int] = field(default_factory=dict)
    """From `{` to its `}`."""
    strays: list[int] = field(default_factory=list)
    """Every `}` that closes nothing."""
    unclosed: set[int] = field(default_factory=set)
    """Every bracket that nothing closes, as an offset into the text."""


def arrange(tokens: list[Token]) -> Layout:
    """The words of `tokens`, with an end at each end of a statement, and EOF at last."""
    return _Arranger(_words(tokens)).run()


def heads_statement(words: list[Token], i: int) -> bool:
    """Whether the i-th word can stand at the head of a statement alone."""
    word = words[i]
    # No expression takes an index, so `layers[0]` at the head of a line starts `layers[0] = ...`.
    return word.kind in HEADS or (word.kind == "NAME" and words[i + 1].kind in ASSIGNS | {"LSQB"})


def _words(tokens: list[Token]) -> list[Token]:
    """Without trivia, keywords told from names, EOF at the end."""
    words: list[Token] = []
    skipped = False
    for token in tokens:
        if token.kind in TRIVIA:
            skipped |= token.kind == UNKNOWN
            continue
        words.append(token._replace(faulty=True) if skipped else token)
        skipped = False
    end = tokens[-1].end if tokens else 0
    words.append(Token(EOF, "", end, skipped))
    for i, word in enumerate(words):
        if word.kind == "NAME" and _opens_line(words, i):
            words[i] = word._replace(kind=_kind(word, words[i + 1]))
    return words


def _kind(word: Token, following: Token) -> str:
    """Of a name at the head of a line: a word of the language, or the name it is."""
    if word.text in OPERANDS and following.kind == "NAME":
        return "OPERAND"
    return SOFT[word.text] if word.text in SOFT and _is_word(following) else word.kind


def _opens_line(words: list[Token], i: int) -> bool:
    return i == 0 or words[i - 1].kind in {END, "LBRACE", "RBRACE"}


def _is_word(token: Token) -> bool:
    """What can follow `mixer` as a keyword, but not as a name."""
    return token.kind in {"NAME", "NUMBER", "LBRACE"} or token.kind in HEADS


class _Arranger:
    def __init__(self, words: list[Token]) -> None:
        self.raw = words
        self.pairs = _pair(words)
        self.following = _following(words)
        self.out = Layout()
        self.depth = 0
        self.loose = False  # whether a bracket of this statement is never closed
        self.braces: list[int] = []  # positions of open `{` in out.words

    def run(self) -> Layout:
        for i, word in enumerate(self.raw):
            if word.kind == END:
                self._end(i)
            else:
                self._close_bodies(i)
                self._word(i, word)
        return self.out

    def _end(self, i: int) -> None:
        """Keep a newline or `;` that stands between two statements."""
        last = self.out.words[-1].kind if self.out.words else END
        following = self.following[i]
        if last in {END, "LBRACE"} or self.raw[following].kind in {"RBRACE", EOF}:
            return
        if self.raw[i].text == "\n":
            if self.depth or self.raw[following].kind == "LBRACE":
                return
            if self.loose and not heads_statement(self.raw, following):
                return
            if last in CONTINUES and not self._breaks_off(last, following):
                return
        self._put(self.raw[i])

    def _breaks_off(self, last: str, following: int) -> bool:
        """Whether the next line is a statement although this one is not complete."""
        if self.raw[following].kind in HEADS:
            return True
        return last in OPERATORS | ASSIGNS and heads_statement(self.raw, following)

    def _close_bodies(self, i: int) -> None:
        """Put the `}` that is missing before a top-level statement or the end of the file."""
        word = self.raw[i]
        if not (word.kind == EOF or (word.kind in TOP_LEVEL and _opens_line(self.raw, i))):
            return
        while self.braces and self.out.words[self.braces[-1]].start in self.out.unclosed:
            if self.out.words[-1].kind == END:
                self.out.words.pop()
                self.out.depths.pop()
            self._word(-1, Token("RBRACE", "", word.start))
            if word.kind != EOF:
                self._put(Token(END, "", word.start))

    def _word(self, i: int, word: Token) -> None:
        paired = i in self.pairs
        if word.kind in {"RPAR", "RSQB"} and paired:
            self.depth -= 1
        self._put(word)
        here = len(self.out.words) - 1
        if word.kind in OPENERS and not paired:
            self.out.unclosed.add(word.start)
        if word.kind in {"LPAR", "LSQB"}:
            self.depth += paired
            self.loose |= not paired
        elif word.kind == "LBRACE":
            self.braces.append(here)
        elif word.kind == "RBRACE":
            if self.braces:
                self.out.partners[self.braces.pop()] = here
            else:
                self.out.strays.append(here)

    def _put(self, word: Token) -> None:
        if word.kind in {END, "LBRACE", "RBRACE"}:
            self.loose = False
        self.out.words.append(word)
        self.out.depths.append(self.depth)


def _following(words: list[Token]) -> list[int]:
    """Per word, the next one that is no end of a line, itself included."""
    following = list(range(len(words)))
    for i in range(len(words) - 2, -1, -1):
        if words[i].kind == END:
            following[i] = following[i + 1]
    return following


def _pair(words: list[Token]) -> set[int]:
    """The brackets that have a partner.

    `}` and a word that heads a statement close what is open before them.
    """
    paired: set[int] = set()
    stack: list[int] = []
    for i, word in enumerate(words):
        kind = word.kind
        if kind in OPENERS:
            stack.append(i)
        elif kind in {"RPAR", "RSQB"}:
            back = _reach(words, stack, PAIRS[kind])
            if back:
                paired |= {i, stack[-back]}
                del stack[-back:]
        elif kind == "RBRACE" or (kind in HEADS and _opens_line(words, i)):
            while stack and words[stack[-1]].kind != "LBRACE":
                stack.pop()
            if kind == "RBRACE" and stack:
                paired |= {i, stack.pop()}
    return paired


def _reach(words: list[Token], stack: list[int], kind: str) -> int:
    """How far back in `stack` the opening bracket of this kind is; 0 if out of reach."""
    for back, i in enumerate(reversed(stack[-NEST:]), 1):
        if words[i].kind == kind:
            return back
        if words[i].kind == "LBRACE":
            break
    return 0
