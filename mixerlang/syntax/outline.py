"""Tokens to what the formatter moves: statements, brackets with their elements, comments.

The outline keeps every token and comment in order; it knows nothing about meaning beyond what
spacing needs, which it notes in the kinds of tokens: a `-` that negates, a `(` that calls, ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from .layout import arrange
from .table import END, EOF
from .tokens import Token

CLOSERS = {"LPAR": "RPAR", "LSQB": "RSQB"}
ENDS_OPERAND = frozenset({"NAME", "NUMBER", "STRING", "TRUE", "FALSE", "RPAR", "RSQB"})
PRODUCTS = frozenset({"STAR", "SLASH", "FLOOR", "AT", "FRACTION"})

TIGHT_BEFORE = frozenset(
    {"COMMA", "RPAR", "RSQB", "_DOT", "_RANGE", "COLON", "SLICE", "CALL", "INDEX", "NAMED"}
    | {"FRACTION"}
)
TIGHT_AFTER = frozenset(
    {"LPAR", "CALL", "LSQB", "INDEX", "_DOT", "_RANGE", "SLICE", "NEGATE", "NAMED", "FRACTION"}
)


@dataclass
class Comment:
    text: str
    own_line: bool


@dataclass
class Element:
    """What stands between two commas, the comments on lines before it, and one behind it."""

    items: list[Item] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    after: str | None = None


@dataclass
class Group:
    """Brackets: `broken` if a line ends behind the opening one; `last` comments have no element."""

    open: Token
    close: Token
    elements: list[Element] = field(default_factory=list)
    broken: bool = False
    after_open: str | None = None
    last: list[str] = field(default_factory=list)

    @cached_property
    def flat(self) -> str | None:
        """All of it in one line, or None if it has to take several."""
        if self.after_open or self.last or (self.broken and self.elements):
            return None
        parts = [flat(e.items) if not e.before and not e.after else None for e in self.elements]
        if None in parts:
            return None
        return self.open.text + ", ".join(p for p in parts if p) + self.close.text


@dataclass
class Entry:
    """A statement or, without items, a comment on a line of its own."""

    blank: bool
    items: list[Item]
    comment: str | None = None


@dataclass
class Body:
    """What stands in braces."""

    entries: list[Entry]
    one_line: bool
    after_open: str | None

    @cached_property
    def flat(self) -> str | None:
        if not self.entries and not self.after_open:
            return "{}"
        if not self.one_line or self.after_open or any(e.comment for e in self.entries):
            return None
        parts = [flat(entry.items) for entry in self.entries]
        return None if None in parts else f"{{ {'; '.join(p for p in parts if p)} }}"


Item: TypeAlias = Token | Comment | Group | Body


def flat(items: list[Item]) -> str | None:
    """The items in one line, or None if they have to take several."""
    text = ""
    for i, item in enumerate(items):
        part = item.text if isinstance(item, Token) else None
        if isinstance(item, Group | Body):
            part = item.flat
        if part is None:
            return None
        text += gap(items[i - 1] if i else None, item) + part
    return text


def gap(left: Item | None, right: Item) -> str:
    """The blank between two neighbours in a line."""
    if left is None or isinstance(left, Comment):
        return ""
    before = left.close if isinstance(left, Group) else left
    behind = right.open if isinstance(right, Group) else right
    if not isinstance(before, Token) or not isinstance(behind, Token):
        return " "
    if before.kind == "NUMBER" and behind.kind == "_DOT":  # `3.T` would be a malformed number
        return " "
    return "" if before.kind in TIGHT_AFTER or behind.kind in TIGHT_BEFORE else " "


def outline(tokens: list[Token]) -> list[Entry]:
    """The statements and comments of a file without syntax errors."""
    return _Reader(tokens).entries(EOF)


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = [token for token in tokens if token.kind != "SPACE"]
        self.tokens.append(Token(EOF, "", tokens[-1].end if tokens else 0))
        self.words = arrange(tokens).words
        self.at = 0
        self.word = 0
        self.last = (END, END)
        """The kinds of the last two words taken."""

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.token
        self.at += 1
        if token.start == self.words[self.word].start and token.kind != EOF:
            self.word += 1
        if token.kind not in {END, "COMMENT"}:
            token = self._classify(token)
            self.last = (self.last[-1], token.kind)
        return token

    def _classify(self, token: Token) -> Token:
        """The token with a kind that tells how it is spaced."""
        operand = self.last[-1] in ENDS_OPERAND
        if token.kind == "MINUS" and not operand:
            return token._replace(kind="NEGATE")
        if token.kind == "LPAR" and operand:
            return token._replace(kind="CALL")
        if token.kind == "LSQB" and operand:
            return token._replace(kind="INDEX")
        # `8/3` is one number to the reader, but not in `a / 8 / 3`.
        numbers = self.last[-1] == self.words[self.word].kind == "NUMBER"
        if token.kind == "SLASH" and numbers and self.last[-2] not in PRODUCTS:
            return token._replace(kind="FRACTION")
        return token

    def entries(self, close: str) -> list[Entry]:
        """Statements and comments up to `close`."""
        entries: list[Entry] = []
        newlines = 0
        while self.token.kind != close:
            blank = newlines > 1 and bool(entries)
            if self.token.kind == END:
                newlines += self.take().text == "\n"
            elif self.token.kind != "COMMENT":
                entries.append(Entry(blank, self.statement()))
                newlines = 0
            elif newlines or not entries:
                entries.append(Entry(blank, [], _comment(self.take())))
                newlines = 0
            else:
                entries[-1].comment = _comment(self.take())
        return entries

    def statement(self) -> list[Item]:
        items: list[Item] = []
        fresh = False
        while True:
            token = self.token
            if token.kind in {END, "COMMENT"}:
                if self.words[self.word].kind in {END, "RBRACE", EOF}:
                    return items
                self._trivia(items, fresh)
                fresh = token.kind == END
            elif token.kind in {"RBRACE", EOF}:
                return items
            else:
                items.append(self.item())
                fresh = False

    def _trivia(self, items: list[Item], fresh: bool) -> None:
        token = self.take()
        if token.kind == "COMMENT":
            items.append(Comment(_comment(token), fresh))

    def item(self) -> Item:
        if self.token.kind == "LBRACE":
            return self.body()
        if self.token.kind in CLOSERS:
            return self.group()
        return self.take()

    def body(self) -> Body:
        self.take()
        after_open = _comment(self.take()) if self.token.kind == "COMMENT" else None
        start = self.at
        entries = self.entries("RBRACE")
        one_line = all(token.text != "\n" for token in self.tokens[start : self.at])
        self.take()
        return Body(entries, one_line, after_open)

    def group(self) -> Group:
        close = CLOSERS[self.token.kind]
        group = Group(self.take(), self.token)
        group.broken = self.token.text == "\n"
        if self.token.kind == "COMMENT":
            group.after_open = _comment(self.take())
        element, fresh = Element(), False
        while self.token.kind != close:
            token = self.token
            if token.kind == "COMMA":
                element = self._next_element(group, element)
            elif token.kind == "COMMENT":
                self._element_comment(group, element, fresh)
            elif token.kind == END:
                self.take()
            else:
                element.items.append(_spaced(self.item(), group, element))
            fresh = token.kind == END or (fresh and token.kind == "COMMENT")
        if element.items:
            element = self._close_element(group, element)
        group.last = element.before
        group.close = self.take()
        return group

    def _next_element(self, group: Group, element: Element) -> Element:
        following = self._close_element(group, element)
        self.take()
        if self.token.kind == "COMMENT" and group.elements[-1].after is None:
            group.elements[-1].after = _comment(self.take())
        return following

    def _close_element(self, group: Group, element: Element) -> Element:
        """End `element`; the next one, with the comments that stood on lines behind it."""
        comments: list[Comment] = []
        while isinstance(element.items[-1], Comment):
            comments.insert(0, element.items.pop())  # type: ignore[arg-type]
        if comments and not comments[0].own_line:
            element.after = comments.pop(0).text
        group.elements.append(element)
        return Element(before=[comment.text for comment in comments])

    def _element_comment(self, group: Group, element: Element, fresh: bool) -> None:
        text = _comment(self.take())
        if element.items:
            element.items.append(Comment(text, fresh))
        else:
            element.before.append(text)


def _spaced(item: Item, group: Group, element: Element) -> Item:
    """Inside brackets `=` and `:` are tight, except in the parameter `a: int = 3`."""
    if not isinstance(item, Token):
        return item
    if item.kind == "COLON" and group.open.kind == "INDEX":
        return item._replace(kind="SLICE")
    if item.kind == "EQUAL" and not any(
        isinstance(i, Token) and i.kind == "COLON" for i in element.items
    ):
        return item._replace(kind="NAMED")
    return item


def _comment(token: Token) -> str:
    return token.text.rstrip()
