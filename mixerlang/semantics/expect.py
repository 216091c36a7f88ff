"""What a place in a spec expects: read off the annotation of a term's field."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from ..primitives import Term

INT = "integer"
NUMBER = "number"
BOOL = "true or false"
WORD = "word"
LIST = "list"
STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Expect:
    """kinds: of values that fit (none: anything does). words: identifiers that stand for
    themselves. item: what the items of a list are. optional: whether `none` fits.
    number: the Python type that numbers become."""

    kinds: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()
    item: Expect | None = None
    optional: bool = False
    number: type | None = None

    def describe(self) -> str:
        """For "expected ...": an integer, a keep, a list of mixers, tova or h2o."""
        if self.words:
            return " or ".join(f"`{word}`" for word in self.words)
        if self.item is not None:
            return f"a list ({self.item.describe()} each)" if self.item.kinds else "a list"
        names = sorted(self.kinds - {"none"}) or ["a value"]
        text = " or ".join(with_article(name) for name in names)
        return f"{text} or none" if self.optional or "none" in self.kinds else text


ANYTHING = Expect()
INTEGER = Expect(frozenset({INT}), number=int)


def with_article(kind: str) -> str:
    if kind in (BOOL, "a value", "none"):
        return kind
    vowel = kind[0] in "aeiou" or kind == "ffn"
    return f"{'an' if vowel else 'a'} {kind}"


def of_kinds(*kinds: str) -> Expect:
    return Expect(frozenset(kinds))


def list_of(item: Expect) -> Expect:
    return Expect(frozenset({LIST}), item=item)


@cache
def fields_of(term: type[Term]) -> dict[str, Expect]:
    """The fields a user may write, by name, in the order of positional arguments."""
    found: dict[str, Expect] = {}
    names = [*term.order, *(n for n in term.model_fields if n not in term.order)]
    for name in names:
        info = term.model_fields[name]
        if name == "origin" or info.exclude:
            continue
        extra = info.json_schema_extra
        if isinstance(extra, dict) and "kinds" in extra:
            kinds = typing.cast("list[str]", extra["kinds"])
            found[name] = Expect(frozenset(kinds))
        elif name == "parts" and info.annotation == tuple[Term, ...]:
            found[name] = list_of(of_kinds("mixer", "none"))
        else:
            found[name] = of_annotation(info.annotation)
    return found


@cache
def variadic(term: type[Term]) -> bool:
    """Whether positional arguments are gathered into the one list field `parts`."""
    return "parts" in term.model_fields


SCALARS: dict[Any, Expect] = {
    bool: Expect(frozenset({BOOL})),
    int: INTEGER,
    float: Expect(frozenset({NUMBER}), number=float),
    Fraction: Expect(frozenset({NUMBER}), number=Fraction),
}


def of_annotation(annotation: Any) -> Expect:
    """From a type: int, float, bool, Literal, Term, tuple[X, ...], X | None."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return of_annotation(arguments[0])
    if origin is typing.Literal:
        return Expect(frozenset({WORD}), words=arguments)
    if origin is tuple:
        return list_of(of_annotation(arguments[0]))
    if origin in (typing.Union, types.UnionType):
        inner = [of_annotation(part) for part in arguments if part is not type(None)]
        assert len(inner) == 1, annotation
        first = inner[0]
        return Expect(first.kinds, first.words, first.item, True, first.number)
    if annotation in SCALARS:
        return SCALARS[annotation]
    assert isinstance(annotation, type) and issubclass(annotation, Term), annotation
    return of_kinds(annotation.kind)


ANNOTATIONS: dict[str, Expect] = {
    "int": INTEGER,
    "float": SCALARS[float],
    "number": SCALARS[Fraction],
    "bool": SCALARS[bool],
    "list": Expect(frozenset({LIST})),
}
"""What a parameter may be annotated with, beside the kinds of terms."""


def of_name(name: str, kinds: frozenset[str]) -> Expect | None:
    """From the annotation of a parameter in a spec; None for an unknown one."""
    if name in ANNOTATIONS:
        return ANNOTATIONS[name]
    if name in kinds:
        return of_kinds(name, "none") if name in ("mixer", "ffn", "norm") else of_kinds(name)
    return None
