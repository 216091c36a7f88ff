"""What a token brings to the equations of a recurrence: q, k and v, decays, gates, weights.

An operand's layer adds its value, (N, T, value_heads, *axes) in at least float32, to those of a
call, where N and T are those of its padded view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .convolution import CausalConv
from .decay import Decay, NoDecay, Shape, widen
from .equation import Axes, Value
from .features import Feature
from .mixer import Sequences, State
from .position import Rope, rotated

NO_DECAY = NoDecay()


@dataclass(frozen=True)
class RuleOperand:
    """An operand of a rule. made: `query`, `key` and `value` are projected, convolved and mapped,
    and q and k rotated; `complement` is 1 - a; `gate` is a sigmoid; `decay` one of decay.py, and
    `step` the softplus inside a scalar one; `weight` is learned and the same for all tokens."""

    name: str
    made: str
    axes: Axes = ()
    decay: Decay = NO_DECAY


@dataclass(frozen=True)
class Sizes:
    """Channels of the input, heads, and channels of a head: key_width is that of the features."""

    dim: int
    heads: int
    value_heads: int
    key_dim: int
    key_width: int
    value_dim: int

    def of(self, axes: Axes) -> tuple[int, ...]:
        """Heads of an operand, and its channels: those of keys have the heads of q and k."""
        if not axes:
            return (self.value_heads,)
        return (
            (self.heads, self.key_width) if axes == ("key",) else (self.value_heads, self.value_dim)
        )


@dataclass(frozen=True)
class Maps:
    """What every query, key and value of a layer goes through."""

    features: Feature
    values: Feature
    position: Rope | None
    conv: int
    scale: float


@dataclass
class Brought:
    """What a call brings: its input, its state, and the operands made so far.

    log_decay and step are those of the decay `a`."""

    x: Tensor
    sequences: Sequences
    state: State
    value_heads: int
    values: dict[str, Value] = field(default_factory=dict)
    log_decay: Tensor | None = None
    step: Tensor | None = None

    def add(self, operand: RuleOperand, y: Tensor) -> None:
        """y (N, T, heads of q and k or of v, *axes), spread over the value heads."""
        y = widen(y).repeat_interleave(self.value_heads // y.shape[2], dim=2)
        self.values[operand.name] = Value(y, operand.axes)


class OperandLayer(nn.Module):
    """Makes one operand of each call."""

    def __init__(self, operand: RuleOperand) -> None:
        super().__init__()
        self.operand = operand

    def new_tail(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """The last inputs of its convolution, if it has one."""
        return None

    def forward(self, call: Brought) -> None:
        raise TypeError(f"{type(self).__name__} has no forward")


class Vectors(OperandLayer):
    """Projection, short convolution, map and, of q and k, rotation."""

    def __init__(self, operand: RuleOperand, sizes: Sizes, maps: Maps) -> None:
        super().__init__(operand)
        valued = operand.made == "value"
        self.heads = sizes.value_heads if valued else sizes.heads
        dim = sizes.value_dim if valued else sizes.key_dim
        self.position = None if valued else maps.position
        self.scale = maps.scale if operand.made == "query" else 1.0
        self.proj = nn.Linear(sizes.dim, self.heads * dim, bias=False)
        self.conv = CausalConv(self.heads * dim, maps.conv) if maps.conv else None
        self.map = (maps.values if valued else maps.features).build(self.heads, dim)

    def new_tail(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        return None if self.conv is None else self.conv.new_tail(batch, dtype, device)

    def forward(self, call: Brought) -> None:
        y = call.sequences.pad(self.proj(call.x))
        if self.conv is not None:
            tail = f"{self.operand.name}.conv"
            y, call.state[tail] = self.conv(y, call.state[tail], call.sequences.counts)
        y = self.map(torch.unflatten(y, -1, (self.heads, -1)))
        if self.position is not None:
            y = rotated(y, call.sequences.positions, self.position)
        call.add(self.operand, widen(y) * self.scale)


class GateLayer(OperandLayer):
    """sigmoid(Linear(x))."""

    def __init__(self, operand: RuleOperand, sizes: Sizes, maps: Maps) -> None:
        super().__init__(operand)
        self.shape = sizes.of(operand.axes)
        self.proj = nn.Linear(sizes.dim, torch.Size(self.shape).numel(), bias=False)

    def forward(self, call: Brought) -> None:
        y = torch.unflatten(torch.sigmoid(widen(self.proj(call.x))), -1, self.shape)
        call.add(self.operand, call.sequences.pad(y))


class DecayLayer(OperandLayer):
    """exp of what a layer of decay.py gives: of keys per head of q and k, else of v."""

    def __init__(self, operand: RuleOperand, sizes: Sizes, maps: Maps) -> None:
        super().__init__(operand)
        shape = Shape(sizes.heads, sizes.value_heads, sizes.key_dim)
        if operand.axes == ("value",):
            shape = Shape(sizes.value_heads, sizes.value_heads, sizes.value_dim)
        self.decay = operand.decay.build(sizes.dim, shape)

    def forward(self, call: Brought) -> None:
        log_decay, step = self.decay(call.x)
        assert log_decay is not None, "no decay is the number 1, which equations say themselves"
        log_decay = call.sequences.pad(log_decay)
        if self.operand.name == "a":
            call.log_decay = log_decay
            call.step = None if step is None else call.sequences.pad(step)
        call.add(self.operand, log_decay.exp())


class StepLayer(OperandLayer):
    """The softplus inside the scalar decay `a`."""

    def __init__(self, operand: RuleOperand, sizes: Sizes, maps: Maps) -> None:
        super().__init__(operand)

    def forward(self, call: Brought) -> None:
        assert call.step is not None, "the step comes from a scalar decay"
        call.add(self.operand, call.step)


class ComplementLayer(OperandLayer):
    """1 - a of the decay `a` per key channel."""

    def __init__(self, operand: RuleOperand, sizes: Sizes, maps: Maps) -> None:
        super().__init__(operand)
        self.position = maps.position

    def forward(self, call: Brought) -> None:
        assert call.log_decay is not None, "the complement is that of a decay per key channel"
        y = -torch.expm1(call.log_decay)
        if self.position is not None:
            y = rotated(y, call.sequences.positions, self.position)
        call.add(self.operand, y)


class WeightLayer(OperandLayer):
    """Learned, the same for all tokens, 1 at first."""

    def __init__(self, operand: RuleOperand, sizes: Sizes, maps: Maps) -> None:
        super().__init__(operand)
        self.weight = nn.Parameter(torch.empty(sizes.of(operand.axes)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, call: Brought) -> None:
        shape = (call.sequences.batch, call.sequences.length)
        call.add(self.operand, self.weight.expand(*shape, *self.weight.shape))


LAYERS: dict[str, Callable[[RuleOperand, Sizes, Maps], OperandLayer]] = {
    "query": Vectors,
    "key": Vectors,
    "value": Vectors,
    "gate": GateLayer,
    "decay": DecayLayer,
    "step": StepLayer,
    "complement": ComplementLayer,
    "weight": WeightLayer,
}
"""By `made`."""
