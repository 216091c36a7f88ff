"""What the language is made of: constructors with documented fields, checks, shapes and costs."""

from __future__ import annotations

from collections.abc import Iterator

from . import attention, combine, convolution, ffn, keep, memory, norm, pointwise, recurrence
from . import model as model
from .base import Mixer, Op, Origin, Report, Term, Workload

MODULES = (attention, combine, convolution, ffn, keep, memory, norm, pointwise, recurrence, model)

RESERVED = frozenset(
    {"attention", "recurrence", "memory", "convolution", "layer", "tied", "none", "reuse"}
)
"""Names that a file cannot redefine."""

ACTIVATIONS = ("silu", "gelu", "relu", "relu2", "sigmoid", "tanh")


def terms() -> Iterator[type[Term]]:
    """Every constructor with a name, in the order of the modules."""
    for module in MODULES:
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Term)
                and value.__module__ == module.__name__
                and value.word
            ):
                yield value


__all__ = ["ACTIVATIONS", "RESERVED", "Mixer", "Op", "Origin", "Report", "Term", "Workload",
           "terms"]
