"""The outline to text: lines of at most WIDTH columns where brackets allow it.

What is printed depends on the tokens, the comments, the blank lines, and on which brackets had a
line end behind the opening one. All of that survives printing, so printing twice changes nothing.
"""

from __future__ import annotations

from .layout import ASSIGNS, OPERATORS
from .outline import Body, Comment, Entry, Group, Item, flat, gap
from .tokens import Token

WIDTH = 100
STEP = 2

BREAKS_AFTER = OPERATORS - {"_RANGE"} | ASSIGNS


class Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line = ""
        self.indent = 0
        """Columns in front of the current line."""

    def file(self, entries: list[Entry]) -> str:
        self.entries(entries, 0)
        self._newline(0)
        return "".join(f"{line}\n" for line in self.lines[1:])

    def entries(self, entries: list[Entry], indent: int) -> None:
        for entry in entries:
            if entry.blank:
                self._newline(0)
            self._newline(indent)
            self.sequence(entry.items, indent, 0)
            if entry.comment:
                self._write(f"  {entry.comment}" if entry.items else entry.comment)

    def sequence(self, items: list[Item], indent: int, tail: int) -> None:
        """Items one after another, with room for `tail` more columns at the end."""
        for start, end in _chunks(items):
            chunk = items[start:end]
            room = 0 if end < len(items) else tail
            space = gap(items[start - 1] if start else None, chunk[0])
            if start and self._wraps(items, start, end, room, indent):
                self._newline(indent + STEP)
                space = ""
            text = flat(chunk)
            if text is not None and self._fits(space + text, room):
                self._write(space + text)
            else:
                self._chunk(chunk, space, indent, room)

    def _wraps(self, items: list[Item], start: int, end: int, tail: int, indent: int) -> bool:
        """Whether a new line begins before the chunk from `start` to `end`."""
        if isinstance(items[start], Comment):  # brings its own line, or stands behind the word
            return False
        if isinstance(items[start - 1], Comment):
            return True
        rest = flat(items[start:])
        if rest is not None and self._fits(" " + rest, tail):
            return False
        # The value of a function goes to a line of its own if that is all it takes.
        function = start > 1 and isinstance(items[start - 2], Group) and _is_equal(items[start - 1])
        if function and rest is not None and indent + STEP + len(rest) + tail <= WIDTH:
            return True
        width = 1 + _head(items[start:end], tail)
        return len(self.line) + width > WIDTH and len(self.line) > indent + STEP

    def _chunk(self, chunk: list[Item], space: str, indent: int, tail: int) -> None:
        """A chunk that takes several lines, or cannot be parted."""
        for i, item in enumerate(chunk):
            if i:
                space = gap(chunk[i - 1], item)
            if isinstance(item, Comment):
                self._comment(item, indent + STEP)
            elif isinstance(item, Token):
                self._write(space + item.text)
            elif item.flat is not None and self._fits(space + item.flat, _rest(chunk[i:], tail)):
                self._write(space + item.flat)
            elif isinstance(item, Group):
                self._write(space)
                self._group(item)
            else:
                self._write(space)
                self._body(item, indent)

    def _group(self, group: Group) -> None:
        """Brackets with one element a line."""
        indent = self.indent
        comma = "" if group.open.kind == "LPAR" else ","
        self._write(group.open.text)
        if group.after_open:
            self._write(f"  {group.after_open}")
        for element in group.elements:
            for comment in element.before:
                self._newline(indent + STEP, comment)
            self._newline(indent + STEP)
            self.sequence(element.items, indent + STEP, len(comma))
            self._write(comma + (f"  {element.after}" if element.after else ""))
        for comment in group.last:
            self._newline(indent + STEP, comment)
        self._newline(indent, group.close.text)

    def _body(self, body: Body, indent: int) -> None:
        self._write("{" + (f"  {body.after_open}" if body.after_open else ""))
        self.entries(body.entries, indent + STEP)
        self._newline(indent, "}")

    def _comment(self, comment: Comment, indent: int) -> None:
        if comment.own_line:
            self._newline(indent, comment.text)
        else:
            self._write(f"  {comment.text}")

    def _fits(self, text: str, tail: int) -> bool:
        return len(self.line) + len(text) + tail <= WIDTH

    def _write(self, text: str) -> None:
        self.line += text

    def _newline(self, indent: int, text: str = "") -> None:
        self.lines.append(self.line.rstrip())
        self.line = " " * indent + text
        self.indent = indent


def _chunks(items: list[Item]) -> list[tuple[int, int]]:
    """The parts of a sequence, as positions: a line may end behind an operator or a comment."""
    cuts = [
        i + 1
        for i, item in enumerate(items[:-1])
        if isinstance(item, Comment) or (isinstance(item, Token) and item.kind in BREAKS_AFTER)
    ]
    return list(zip([0, *cuts], [*cuts, len(items)], strict=True)) if items else []


def _is_equal(item: Item) -> bool:
    return isinstance(item, Token) and item.kind == "EQUAL"


def _head(items: list[Item], tail: int) -> int:
    """Columns up to the first opening bracket, or of all that cannot be parted."""
    width = 0
    for i, item in enumerate(items):
        width += len(gap(items[i - 1] if i else None, item))
        if not isinstance(item, Token):
            return width + 1
        width += len(item.text)
    return width + tail


def _rest(items: list[Item], tail: int) -> int:
    """Columns that have to follow the first item in its line."""
    return len(gap(items[0], items[1])) + _head(items[1:], tail) if len(items) > 1 else tail
