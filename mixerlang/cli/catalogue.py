"""Every name that a spec may use without defining it: constructors, and the prelude's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..primitives import ACTIVATIONS, Term, terms
from ..semantics.files import prelude
from ..semantics.reference import TITLES
from ..syntax import ast

WORDS = {"mixer": "provided mixers", "block": "provided blocks", "let": "provided definitions"}


@dataclass(frozen=True)
class Entry:
    """A name. kind: what it makes. about: one line. term, or the text of a provided definition."""

    name: str
    kind: str
    section: str
    signature: str
    about: str
    term: type[Term] | None = None
    text: str | None = None


def entries() -> list[Entry]:
    """All names, by section: what is provided in .mix after the constructors it is made of."""
    found = [*_constructors(), *_provided()]
    order = list(dict.fromkeys(entry.section for entry in found))
    return sorted(found, key=lambda entry: order.index(entry.section))


def _constructors() -> Iterator[Entry]:
    by_kind: dict[str, list[type[Term]]] = {kind: [] for kind in TITLES}
    for term in terms():
        by_kind[term.kind].append(term)
    for kind, title in TITLES.items():
        for term in by_kind[kind]:
            yield Entry(term.word, kind, title.lower(), term.word, _summary(term), term)
        if kind == "pointwise":
            for name in ACTIVATIONS:
                yield Entry(name, kind, title.lower(), name, "An element-wise function.")


def _summary(term: type[Term]) -> str:
    """The first sentence or line of its documentation, and whether a layer waits."""
    text = " ".join((term.__doc__ or "").partition("\n\n")[0].split())
    return text if term.ready else f"{text} No layer yet.".strip()


def _provided() -> Iterator[Entry]:
    for file in prelude():
        for statement in file.statements:
            if isinstance(statement, ast.Import | ast.Model):
                continue
            kind = _kind(statement)
            comment, text = _with_comment(statement)
            about = comment or _body(statement)
            yield Entry(statement.name.id, kind, WORDS[kind], _signature(statement), about,
                        text=text)


def _kind(statement: ast.Statement) -> str:
    if isinstance(statement, ast.BlockDef):
        return "block"
    return "let" if isinstance(statement, ast.Let) else "mixer"


def _signature(statement: ast.MixerDef | ast.Let | ast.BlockDef | ast.RecurrenceDef) -> str:
    """The name and its parameters, as they are written, on one line."""
    name = statement.name.id
    if not statement.parameters:
        return name
    first, last = statement.parameters[0].span, statement.parameters[-1].span
    return f"{name}({' '.join(first.to(last).text.split())})"


def _with_comment(statement: ast.Statement) -> tuple[str, str]:
    """The comment above a definition as one line, and the definition with it."""
    source = statement.span.source
    line = statement.span.begin[0]
    above = line
    while above > 1 and source.line(above - 1).startswith("#"):
        above -= 1
    comment = " ".join(source.line(number).lstrip("# ") for number in range(above, line))
    text = source.text[source.line_starts[above - 1] : statement.span.end]
    return comment, text.rstrip() + "\n"


def _body(statement: ast.MixerDef | ast.Let | ast.BlockDef | ast.RecurrenceDef) -> str:
    """What a definition says after its name and parameters, on one line."""
    text = statement.span.text
    if isinstance(statement, ast.BlockDef | ast.RecurrenceDef):
        text = text[text.index("{") + 1 : text.rindex("}")]
    else:
        text = statement.value.span.text
    return " ".join(text.split())
