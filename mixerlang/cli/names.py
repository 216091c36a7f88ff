"""mixerlang list and mixerlang show: the names that every spec may use."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from textwrap import indent, wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json

if TYPE_CHECKING:
    from ..primitives import Term
    from .catalogue import Entry

WIDTH = 100


def list_names(
    word: Annotated[
        str,
        typer.Argument(metavar="WORD", show_default=False,
                       help="Only what has this word in its name or section."),
    ] = "",
    json: Json = False,
) -> None:
    """List mixers, keeps, blocks and everything else that a spec can name."""
    from .catalogue import entries
    from .output import print_data

    wanted = word.lower()
    found = [e for e in entries() if wanted in e.name or wanted in e.section]
    if not found:
        raise typer.BadParameter(f"no name or section has {word!r} in it", param_hint="WORD")
    if json:
        print_data([_as_json(entry) for entry in found])
        return
    for title, group in groupby(found, key=lambda entry: entry.section):
        print(f"{title}:")
        print("\n".join(_lines(list(group))), end="\n\n")
    print("`mixerlang show NAME` tells more of one.")


def _lines(group: list[Entry]) -> Iterable[str]:
    """Names lined up; the parameters are left to `show`."""
    column = max(len(entry.name) for entry in group)
    for entry in group:
        line = f"  {entry.name:<{column}}  {entry.about}".rstrip()
        yield line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="As `list` has "
                                        "it: nsa, attention, window.")],
    json: Json = False,
) -> None:
    """Show a provided definition as .mix, or the fields of a constructor."""
    from ..diagnostics.suggest import did_you_mean
    from .catalogue import entries
    from .output import print_data

    known = entries()
    found = [entry for entry in known if entry.name == name]
    if not found:
        help = did_you_mean(name, [entry.name for entry in known]) or "see `mixerlang list`"
        raise typer.BadParameter(f"nothing is called {name!r}; {help}", param_hint="NAME")
    if json:
        print_data([_as_json(entry) for entry in found])
    else:
        print("\n\n".join(_text(entry) for entry in found))


def _text(entry: Entry) -> str:
    if entry.text is not None:
        return entry.text.rstrip("\n")
    head = "\n".join([f"{entry.name} ({entry.section})", *wrap(entry.about, WIDTH)])
    if entry.term is None:
        return head
    fields = [_field_text(field) for field in _fields(entry.term)]
    return "\n".join([head, *fields])


def _field_text(field: dict[str, Any]) -> str:
    bounds = f", {field['bounds']}" if field["bounds"] else ""
    default = "required" if field["required"] else f"default {field['default']}"
    about = indent("\n".join(wrap(field["description"], WIDTH - 8)), " " * 6)
    return f"\n  {field['name']}: {field['type']}{bounds}, {default}\n{about}".rstrip()


def _fields(term: type[Term]) -> list[dict[str, Any]]:
    """The documented fields, by the same words as the reference."""
    from ..semantics.reference import field_rows

    found = []
    for name, kind, bounds, default, description in field_rows(term):
        required = default == "required"
        found.append({
            "name": name.strip("`"),
            "type": kind.replace("`", ""),
            "bounds": bounds,
            "required": required,
            "default": None if required else default.strip("`"),
            "description": description,
        })
    return found


def _as_json(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": entry.name, "kind": entry.kind, "section": entry.section,
        "signature": entry.signature, "about": entry.about,
    }
    if entry.term is not None:
        found |= {"implemented": entry.term.ready, "fields": _fields(entry.term)}
    if entry.text is not None:
        found["source"] = entry.text
    return found
