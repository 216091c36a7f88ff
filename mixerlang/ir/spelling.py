"""Terms as .mix text: the word, then the arguments that are not defaults."""

from __future__ import annotations

from fractions import Fraction

from ..primitives import Term
from ..primitives.keep import Intersection, Union
from ..primitives.pointwise import Activation
from ..primitives.recurrence import Compose
from ..primitives.scan import Rule

OPERATORS: dict[type[Term], str] = {Union: " | ", Intersection: " & ", Compose: " >> "}
"""Terms that are written with an operator between their `parts`."""


def spell(value: object) -> str:
    """A value of the language as a spec would write it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case Fraction():
            return str(value)
        case tuple():
            return f"[{', '.join(map(spell, value))}]"
        case Term():
            return _term(value)
    return str(value)


def _term(term: Term) -> str:
    operator = OPERATORS.get(type(term))
    if operator is not None:
        parts: tuple[Term, ...] = getattr(term, "parts", ())
        return operator.join(_operand(part) for part in parts)
    if isinstance(term, Rule):
        return f"{{ {'; '.join(term.lines)} }}"
    if isinstance(term, Activation):
        return term.function
    arguments = _arguments(term)
    word = term.word or type(term).__name__.lower()
    return f"{word}({', '.join(arguments)})" if arguments else word


def _operand(term: Term) -> str:
    return f"({_term(term)})" if type(term) in OPERATORS else _term(term)


def _arguments(term: Term) -> list[str]:
    """What differs from the defaults, by name; a single required argument needs none.

    Fields that a bound term has resolved into others are left out.
    """
    written = {}
    required = [name for name, field in type(term).model_fields.items() if field.is_required()]
    for name, value in term.arguments().items():
        field = type(term).model_fields[name]
        if name in term.spec_only:
            continue
        if field.is_required() or value != field.get_default(call_default_factory=True):
            written[name] = value
    if "parts" in written:
        return [spell(part) for part in written["parts"]]
    if required == list(written) and len(required) == 1:
        return [spell(written[required[0]])]
    return [f"{name}={spell(value)}" for name, value in written.items()]
