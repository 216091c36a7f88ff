"""What every value of the language shares: documented fields, a place in the text, checks, costs.

A term is a constructor of the language (`window(512)`, `rmsnorm(eps=1e-6)`) with its arguments.
Its fields are the single source of what the constructor accepts: types, bounds, defaults and
documentation are read off the pydantic model by the evaluator, the reference, and the editor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict
from pydantic import Field as PydanticField
from pydantic_core import CoreSchema, core_schema

from ..algebra import Count
from ..source import Span
from .part import Part, Workload, total


@dataclass(frozen=True, eq=False, slots=True)
class Origin:
    """Where a term and its arguments stand, and what the spec calls it (`gdn`).

    Origins are all equal: terms compare by value.
    """

    span: Span | None = None
    fields: Mapping[str, Span] = field(default_factory=dict)
    label: str | None = None

    def of(self, name: str) -> Span | None:
        """The place of one argument, or of the whole term where it was left out."""
        return self.fields.get(name, self.span)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        # By default pydantic would look into the spans, for every term again: half of the time
        # that a `mixerlang check` takes.
        return core_schema.is_instance_schema(cls)


class Report(Protocol):
    """How a term tells what is wrong with it."""

    def __call__(
        self, code: str, span: Span | None, message: str, *, help: str | None = None
    ) -> None: ...


class Term(BaseModel):
    """A constructor of the language applied to its arguments.

    `kind` says where it may stand (keep, mixer, ffn, norm, ...); `word` is its name in .mix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True,
                              defer_build=True)

    kind: ClassVar[str]
    word: ClassVar[str] = ""
    ready: ClassVar[bool] = True
    """Whether the eager backend has a layer for it; terms that wait are told with MX501."""

    order: ClassVar[tuple[str, ...]] = ()
    """Fields that positional arguments fill, where that is not the order of the fields."""
    spec_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that `bind` resolves into others, so that layers do not take them."""

    origin: Origin = PydanticField(default_factory=Origin, exclude=True, repr=False)

    def arguments(self) -> dict[str, Any]:
        """The fields a user may write, by name, as values (terms, numbers, words, lists)."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "origin"}

    def check(self, report: Report) -> None:
        """Report what is wrong with the arguments together, without knowing the model."""

    def replace(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)

    def children(self) -> list[Term]:
        """Terms among the arguments, lists opened."""
        found: list[Term] = []
        for value in self.arguments().values():
            items = value if isinstance(value, tuple) else (value,)
            found.extend(item for item in items if isinstance(item, Term))
        return found


class Op(Term):
    """A term that becomes a node of the graph: it maps (B, T, width) to (B, T, width')."""

    def bind(self, width: int, report: Report) -> Self:
        """Fill what depends on the width of the input, and check what does."""
        return self

    def output_width(self, *widths: int) -> int:
        """Channels out, from those of each input."""
        return widths[0]

    def parameters(self, width: int) -> int:
        """Trainable parameters of the bound term."""
        return 0

    def keeps_inputs(self) -> bool:
        """Whether the backward pass reads what the op read."""
        return True

    def parts(self, width: int, work: Workload) -> list[Part]:
        """What `length` new tokens of each sequence cost, without a cache."""
        return []

    def step_parts(self, width: int, work: Workload) -> list[Part]:
        """What one more token of each sequence costs, after `length` in a cache."""
        return self.parts(width, work.one)

    def forward_flops(self, width: int, work: Workload) -> Count:
        """FLOPs of the dense forward: every score, masked or not."""
        return total(part.forward for part in self.parts(width, work)).dense

    def cache_bytes(self, width: int, work: Workload) -> Count:
        """Bytes a decoding cache holds after `length` tokens, allocated for `length` tokens."""
        return 0

    def bound_bytes(self, width: int, work: Workload) -> Count:
        """Bytes of what the definition must hold for later tokens, however it is held."""
        return self.cache_bytes(width, work)


class Mixer(Op):
    """An op that mixes tokens over time."""

    kind: ClassVar[str] = "mixer"


__all__ = ["Mixer", "Op", "Origin", "Part", "Report", "Term", "Workload"]
