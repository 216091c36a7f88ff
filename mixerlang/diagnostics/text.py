"""Diagnostics for people: full, with lines of the source, or one line each.

The first line of the full form is the concise one.
"""

from __future__ import annotations

from .record import Diagnostic, Note
from .snippet import snippet
from .terminal import clean, paint


def concise(item: Diagnostic, color: bool = False) -> str:
    """`path:line:column: error MX302 message`."""
    place = "" if item.span is None else f"{clean(str(item.span))}: "
    kind = paint(f"{item.severity} {item.code}", item.severity, color)
    return f"{paint(place, 'strong', color)}{kind} {clean(item.message)}"


def full(item: Diagnostic, color: bool = False) -> str:
    """The concise line, the lines of the source, then notes and the way out."""
    rows = [concise(item, color)]
    if item.span is not None:
        rows += snippet(item.span, "^", item.severity, color)
    for note in item.notes:
        rows += _note(note, color)
    if item.help is not None:
        rows.append(f"  {paint('help', 'help', color)}: {clean(item.help)}")
    return "\n".join(rows)


def _note(note: Note, color: bool) -> list[str]:
    word = paint("note", "note", color)
    if note.span is None:
        return [f"  {word}: {clean(note.message)}"]
    head = f"{clean(str(note.span))}: {word}: {clean(note.message)}"
    return [head, *snippet(note.span, "-", "note", color)]


def summary(items: list[Diagnostic]) -> str:
    """`2 errors, 1 warning`."""
    errors = sum(item.severity == "error" for item in items)
    counts = ((errors, "error"), (len(items) - errors, "warning"))
    return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts if n)
