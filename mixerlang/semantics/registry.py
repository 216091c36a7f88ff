"""The provided constructors by name and kind, and the words that fields list."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from ..primitives import ACTIVATIONS, Term, terms
from ..primitives.model import ModelFields
from ..primitives.pointwise import Activation
from .expect import ANNOTATIONS, fields_of

PREFERENCE = ("mixer", "keep", "ffn", "norm", "pointwise", "feature", "decay", "output", "none")
"""Which meaning a name has where nothing says which kind is expected."""


@cache
def constructors() -> dict[str, dict[str, type[Term]]]:
    """name -> kind -> term."""
    found: dict[str, dict[str, type[Term]]] = {}
    for term in terms():
        if term is ModelFields:
            continue
        by_kind = found.setdefault(term.word, {})
        assert term.kind not in by_kind, (term.word, term.kind)
        by_kind[term.kind] = term
    for name in ACTIVATIONS:
        found.setdefault(name, {})["pointwise"] = Activation
    return found


def ranked(kinds: Iterable[str]) -> list[str]:
    """Kinds that a name may have, the preferred ones first."""
    place = {kind: i for i, kind in enumerate(PREFERENCE)}
    return sorted(kinds, key=lambda kind: place.get(kind, len(place)))


def preset(name: str, term: type[Term]) -> dict[str, Any]:
    """Fields that the name itself gives: `silu` is Activation(function="silu")."""
    return {"function": name} if term is Activation else {}


@cache
def kinds() -> frozenset[str]:
    """Kinds of terms that a parameter may be annotated with."""
    found = {kind for by_kind in constructors().values() for kind in by_kind}
    return frozenset(found | {"block", "layer"})


@cache
def words() -> frozenset[str]:
    """Every word that some field lists."""
    found: set[str] = set()
    for term in [*terms()]:
        for expect in fields_of(term).values():
            found.update(expect.words)
    return frozenset(found)


def annotation_names() -> list[str]:
    return sorted([*ANNOTATIONS, *kinds()])
