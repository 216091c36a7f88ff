"""A model with every name resolved: what the graph is built from."""

from __future__ import annotations

from dataclasses import dataclass

from ..primitives.model import ModelFields
from ..source import Span
from .dataflow import Program


@dataclass(frozen=True, slots=True)
class ResolvedLayer:
    """One layer: its program, what the spec calls it, and the line that put it there.

    Layers written alike share one program object.
    """

    program: Program
    label: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """fields: with `final_norm` as it applies. params: values in force, by name.

    partial: whether layers are left out, because something is wrong with them.
    """

    name: str
    fields: ModelFields
    params: dict[str, object]
    layers: tuple[ResolvedLayer, ...]
    span: Span
    partial: bool = False
