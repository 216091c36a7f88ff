"""The recurrence of a spec's own equations that is no point of the space of recurrence.py.

No name makes one: `recurrence name { ... }` does, where it is called. Its equations have been
checked then: each line is one `name = expression` of known shapes.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from ..algebra import Count, ceil_div, reached
from .attention import HeadDim, Heads
from .base import Mixer, Report, Term
from .norm import Position
from .part import Flops, Part, Workload, depthwise, linear
from .recurrence import (
    Decay,
    Feature,
    GatedRMSNorm,
    Identity,
    NoDecay,
    Output,
    PlainOutput,
    Recurrence,
    RMSNormOutput,
)

SEGMENT = 64
"""Tokens between the states that training keeps."""

Axes = tuple[str, ...]

Made = Literal["query", "key", "value", "complement", "gate", "decay", "step", "weight"]

SHARED = (
    "heads",
    "value_heads",
    "key_dim",
    "value_dim",
    "features",
    "values",
    "position",
    "conv",
    "output",
    "scale",
)
"""Fields that a scan has of the recurrence that it would be at its call."""


class Equation(str):
    """`S = a * S`, as rules.py writes it: names, numbers, operators, never a user's own text."""

    __slots__ = ()


class RuleState(Term):
    """A state and its axes."""

    kind: ClassVar[str] = "rule state"
    name: str
    axes: Axes


class RuleOperand(Term):
    """What a token brings, without axes a number per value head."""

    kind: ClassVar[str] = "rule operand"
    name: str
    made: Made
    axes: Axes = ()
    decay: Decay = Field(default_factory=NoDecay)


class Rule(Term):
    """What a token does. contractions: the sizes of each product that sums over an axis."""

    kind: ClassVar[str] = "rule"
    spec_only: ClassVar[frozenset[str]] = frozenset({"contractions"})

    name: str
    states: tuple[RuleState, ...]
    operands: tuple[RuleOperand, ...]
    lines: tuple[Equation, ...]
    contractions: tuple[Axes, ...] = ()


class Scan(Mixer):
    """A recurrence of a spec's own equations, token by token."""

    word: ClassVar[str] = "scan"

    heads: Heads
    value_heads: Heads | None = None
    key_dim: HeadDim | None = None
    value_dim: HeadDim | None = None
    rule: Rule
    features: Feature = Field(default_factory=Identity)
    values: Feature = Field(default_factory=Identity)
    position: Position | None = None
    conv: Annotated[int, Field(ge=0, le=64)] = 0
    output: Output = Field(default_factory=RMSNormOutput)
    scale: float | None = None

    def bind(self, width: int, report: Report) -> Self:
        fields = {name: getattr(self, name) for name in SHARED}
        bound = Recurrence(**fields, origin=self.origin).bind(width, report)
        return self.replace(
            value_heads=bound.value_heads, key_dim=bound.key_dim, value_dim=bound.value_dim
        )

    # --------------------------------------------------------------------------------- costs

    def shape(self) -> tuple[int, int, int, int]:
        """heads, value_heads, key_dim, value_dim of the bound term."""
        assert self.value_heads and self.key_dim and self.value_dim, "cost of an unbound term"
        return self.heads, self.value_heads, self.key_dim, self.value_dim

    def sizes(self) -> dict[str, int]:
        """Of each axis of a state."""
        _, _, key_dim, value_dim = self.shape()
        return {"key": self.features.width(key_dim), "value": value_dim}

    def _channels(self, operand: RuleOperand) -> int:
        """Channels of an operand in all heads."""
        heads, value_heads, key_dim, value_dim = self.shape()
        if operand.made in ("query", "key"):
            return heads * key_dim
        if operand.made == "value" or operand.axes == ("value",):
            return value_heads * value_dim
        return heads * self.sizes()["key"] if operand.axes else value_heads

    def _vectors(self) -> list[RuleOperand]:
        """The operands that are projected, convolved and mapped."""
        return [each for each in self.rule.operands if each.made in ("query", "key", "value")]

    def _decays(self) -> list[tuple[Decay, int, int]]:
        """Each decay with its heads, and channels of a head where it has one per channel."""
        heads, value_heads, key_dim, value_dim = self.shape()
        return [
            (each.decay, heads, key_dim) if each.axes == ("key",)
            else (each.decay, value_heads, value_dim)
            for each in self.rule.operands if each.made == "decay"
        ]  # fmt: skip

    def projections(self, width: int) -> list[tuple[int, int]]:
        """Linear maps of the layer as (in, out)."""
        _, value_heads, _, value_dim = self.shape()
        values = value_heads * value_dim
        maps = [(values, width)]
        for operand in self.rule.operands:
            if operand.made in ("query", "key", "value", "gate"):
                maps.append((width, self._channels(operand)))
        for decay, heads, dim in self._decays():
            maps += decay.maps(width, heads, dim)
        if isinstance(self.output, GatedRMSNorm):
            rank = self.output.rank
            maps += [(width, values)] if rank is None else [(width, rank), (rank, values)]
        return maps

    def conv_channels(self) -> int:
        """Channels under the short convolution."""
        return sum(map(self._channels, self._vectors())) if self.conv else 0

    def _map_weights(self) -> int:
        """Parameters of the features, of q and of each key."""
        heads, _, key_dim, _ = self.shape()
        mapped = sum(operand.made != "value" for operand in self._vectors())
        return mapped * self.features.weights(heads, key_dim)

    def parameters(self, width: int) -> int:
        total = sum(a * b for a, b in self.projections(width))
        for decay, heads, dim in self._decays():
            maps = sum(a * b for a, b in decay.maps(width, heads, dim))
            total += decay.weights(width, heads, dim) - maps
        total += self.conv * self.conv_channels() + self._map_weights()
        total += sum(self._channels(each) for each in self.rule.operands if each.made == "weight")
        return total + (0 if isinstance(self.output, PlainOutput) else self.shape()[3])

    def parts(self, width: int, work: Workload) -> list[Part]:
        """Projections, maps, convolution, and the equations token by token."""
        found = [linear(f"{a} -> {b}", work, a, b) for a, b in self.projections(width)]
        if self.conv:
            channels = self.conv_channels()
            found.append(depthwise("conv", work, channels, self.conv, saved=channels))
        weights = self._map_weights()
        if weights:
            maps = Flops(2 * work.tokens * weights, 2 * work.tokens * weights)
            found.append(Part("features", maps, maps * 2, read=work.bytes_per_element * weights))
        return [*found, self._equations(work)]

    def _equations(self, work: Workload) -> Part:
        """What the equations sum over. Beyond a segment the backward pass runs them again, from
        the states that were kept; but for what the first token and the last need no gradient of."""
        sizes, (_, value_heads, *_) = self.sizes(), self.shape()
        summed = sum(prod(sizes[axis] for axis in axes) for axes in self.rule.contractions)
        flops = 2 * work.tokens * value_heads * summed
        backward = Flops(2 * flops, (2 + reached(work.length, SEGMENT + 1)) * flops)
        brought = sum(prod(sizes[axis] for axis in each.axes) for each in self.rule.operands)
        operands = work.tokens * 4 * value_heads * brought
        o, states = work.tokens * 4 * value_heads * sizes["value"], work.batch * self.state_bytes()
        kept = operands + o + ceil_div(work.length, SEGMENT) * states
        return Part(
            "equations", Flops(flops, flops), backward, operands + states, o + states, saved=kept
        )

    def state_bytes(self) -> int:
        """Of one sequence."""
        sizes, (_, value_heads, *_) = self.sizes(), self.shape()
        held = sum(prod(sizes[axis] for axis in each.axes) for each in self.rule.states)
        return 4 * value_heads * held

    def cache_bytes(self, width: int, work: Workload) -> Count:
        """The states of each head in float32, and the convolution's last inputs."""
        tail = max(0, self.conv - 1) * self.conv_channels() * work.bytes_per_element
        return work.batch * (self.state_bytes() + tail)
