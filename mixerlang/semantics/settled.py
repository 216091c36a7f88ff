"""A spec with other defaults for the params of a model: settings written into the text."""

from __future__ import annotations

from collections.abc import Mapping

from ..syntax import ast
from .project import Project


def settled(project: Project, model: ast.Model, settings: Mapping[str, str]) -> str:
    """The text of the file, each setting in the place of its param's default. Settings have been
    accepted by `Project.resolve`."""
    params = {item.parameter.name.id: item.parameter for item in model.items
              if isinstance(item, ast.Param)}
    places: list[tuple[int, int, str]] = []
    for name, value in settings.items():
        parameter = params[name]
        if parameter.default is not None:
            span = parameter.default.span
            places.append((span.start, span.end, value))
        else:
            end = (parameter.annotation or parameter.name).span.end
            places.append((end, end, f" = {value}"))
    text = model.span.source.text
    for start, end, value in sorted(places, reverse=True):
        text = text[:start] + value + text[end:]
    return text
