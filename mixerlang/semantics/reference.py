"""The language reference in Markdown, read off the constructors: docs/reference.md.

`python -m mixerlang.semantics.reference` prints it; a test keeps the file current.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from ..primitives import ACTIVATIONS, Term, terms
from ..primitives.model import ModelFields
from .expect import fields_of

TITLES = {
    "model": "Model fields",
    "mixer": "Mixers",
    "layer": "Layers",
    "keep": "Keeps",
    "scorer": "Scorers of learned eviction",
    "map": "Maps of compressed blocks",
    "position": "Positions",
    "norm": "Norms",
    "ffn": "Feed-forward networks",
    "feature": "Features of a recurrence",
    "decay": "Decays of a recurrence",
    "update": "Updates of a recurrence",
    "output": "Outputs of a recurrence",
    "pointwise": "Functions in blocks",
    "init": "Inits",
    "inner": "Inner models of a memory",
    "objective": "Objectives of a memory",
    "retention": "Retentions of a memory",
    "reuse": "Reuse",
    "none": "None",
}


def reference() -> str:
    """The whole page."""
    by_kind: dict[str, list[type[Term]]] = {kind: [] for kind in TITLES}
    for term in terms():
        by_kind[term.kind].append(term)
    lines = [
        "# Reference",
        "",
        "Every constructor of the language with its fields, generated from their definitions by",
        "`python -m mixerlang.semantics.reference`. Arguments are positional in the order shown,",
        "or named.",
        "",
    ]
    for kind, title in TITLES.items():
        lines += [f"## {title}", ""]
        for term in by_kind[kind]:
            lines += section(term)
        if kind == "pointwise":
            lines += ["### " + ", ".join(f"`{name}`" for name in ACTIVATIONS), "",
                      "Element-wise functions.", ""]
    return "\n".join(lines).rstrip() + "\n"


def section(term: type[Term]) -> list[str]:
    """The lines of one constructor."""
    waits = "" if term.ready else " *(accepted, no layer yet)*"
    lines = [f"### `{term.word}`{waits}", "", " ".join((term.__doc__ or "").split()), ""]
    rows = list(field_rows(term))
    if rows:
        lines += ["| field | type | bounds | default | |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        if term is ModelFields:
            lines += ["| `layers` | a list of mixers and layers | at least 1 | required | The "
                      "layers. |",
                      "| `block` | a block | | `prenorm` | How a layer's parts are wired. |"]
        lines.append("")
    return lines


def field_rows(term: type[Term]) -> Iterator[tuple[str, str, str, str, str]]:
    """(name, type, bounds, default, description) of each field."""
    for name, expect in fields_of(term).items():
        info = term.model_fields[name]
        yield (
            f"`{name}`",
            expect.describe(),
            bounds([*info.metadata, *inner_metadata(info.annotation)]),
            default(info),
            info.description or "",
        )


def inner_metadata(annotation: Any) -> list[Any]:
    """Metadata of the number in `Annotated[int, ...] | None` or in a tuple of them."""
    found: list[Any] = []
    if typing.get_origin(annotation) is typing.Annotated:
        for rule in annotation.__metadata__:
            found += getattr(rule, "metadata", [rule])
    for argument in typing.get_args(annotation):
        found += inner_metadata(argument)
    return found


SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def bounds(metadata: list[Any]) -> str:
    """The limits of a number: `≥ 1, < 2147483648`."""
    found = [
        f"{sign} {getattr(rule, attribute)}"
        for attribute, sign in SIGNS.items()
        for rule in metadata
        if getattr(rule, attribute, None) is not None
    ]
    return ", ".join(found)


def default(info: Any) -> str:
    """What a field is when left out, as it would be written."""
    if info.is_required():
        return "required"
    return f"`{written(info.get_default(call_default_factory=True))}`"


def written(value: Any) -> str:
    """A default as the language writes it."""
    if isinstance(value, Term):
        return value.word
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(written(item) for item in value)}]"
    return str(value)


if __name__ == "__main__":
    print(reference(), end="")
