"""A recurrence of a spec's own equations, token by token.

What is linear in its states and no point of the space of recurrence.py runs here, exactly as it is
written. Training keeps the states of every SEGMENT tokens and computes those between again.

Shapes: N sequences of T tokens in the padded view of a call, (B, T) in its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..kernels.scan import rule as kernel_rule
from ..kernels.scan.launch import problem
from ..kernels.scan.op import scan
from . import backend
from .activation import ACTIVATIONS
from .equation import Axes, Equations, Value
from .features import Feature, Identity
from .mixer import Context, Mixer, Sequences, State
from .norm import RMSNorm
from .operands import LAYERS, Brought, Maps, OperandLayer, RuleOperand, Sizes
from .position import Rope
from .projection import projection
from .recurrence import GatedRMSNorm, Output, PlainOutput, RMSNormOutput

SEGMENT = 64
"""Tokens between the states that training keeps."""

# Defaults, as the language has them.
IDENTITY, NORM = Identity(), RMSNormOutput()

Held = dict[str, Tensor]
"""States by name, (N, value_heads, *axes)."""


@dataclass(frozen=True)
class RuleState:
    """A state and its axes, zero before the first token."""

    name: str
    axes: Axes


@dataclass(frozen=True)
class Rule:
    """What a token does: the lines run in order and give the states, and `o` (value)."""

    name: str
    states: tuple[RuleState, ...]
    operands: tuple[RuleOperand, ...]
    lines: tuple[str, ...]


def said(rule: Rule) -> kernel_rule.Equations:
    """A rule as its kernels take it."""
    states = tuple((each.name, each.axes) for each in rule.states)
    operands = tuple((each.name, each.axes) for each in rule.operands)
    return kernel_rule.Equations(states, operands, rule.lines)


class Scan(Mixer):
    """A recurrence of its own equations: on a GPU in one launch, elsewhere in plain PyTorch.

    State: those of the rule, in float32, and `k.conv`, the tail of the convolution of each operand.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        value_heads: int,
        key_dim: int,
        value_dim: int,
        rule: Rule,
        features: Feature = IDENTITY,
        values: Feature = IDENTITY,
        position: Rope | None = None,
        conv: int = 0,
        output: Output = NORM,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.value_heads = value_heads
        self.rule = rule
        self.equations = Equations(rule.lines)
        self.sizes = {"key": features.width(key_dim), "value": value_dim}
        self.said = said(rule)
        self.problem = problem(self.said, value_heads, self.sizes["key"], value_dim)
        self.output = output
        sizes = Sizes(dim, heads, value_heads, key_dim, self.sizes["key"], value_dim)
        maps = Maps(features, values, position, conv, key_dim**-0.5 if scale is None else scale)
        # k_t as in a formula: so that no name of a spec can be one of the dict's own.
        self.operands = nn.ModuleDict(
            {f"{each.name}_t": LAYERS[each.made](each, sizes, maps) for each in rule.operands}
        )
        self.o_norm = self.g_proj = None
        if not isinstance(output, PlainOutput):
            self.o_norm = RMSNorm(value_dim, eps=output.eps)
        if isinstance(output, GatedRMSNorm):
            self.g_proj = projection(dim, value_heads * value_dim, output.rank)
        self.o_proj = nn.Linear(value_heads * value_dim, dim, bias=False)

    def new_state(
        self, batch: int, max_length: int | None, dtype: torch.dtype, device: torch.device
    ) -> State:
        wide = torch.promote_types(dtype, torch.float32)
        state = {}
        for each in self.rule.states:
            shape = (batch, self.value_heads, *(self.sizes[axis] for axis in each.axes))
            state[each.name] = torch.zeros(shape, dtype=wide, device=device)
        for layer in self._layers():
            tail = layer.new_tail(batch, dtype, device)
            if tail is not None:
                state[f"{layer.operand.name}.conv"] = tail
        return state

    def _layers(self) -> Iterator[OperandLayer]:
        for layer in self.operands.values():
            assert isinstance(layer, OperandLayer)
            yield layer

    def forward(self, x: Tensor, context: Context) -> Tensor:
        sequences = context.sequences
        state = dict(context.state or self.new_state(sequences.batch, None, x.dtype, x.device))
        brought = Brought(x, sequences, state, self.value_heads)
        for layer in self._layers():
            layer(brought)
        held = {each.name: state[each.name] for each in self.rule.states}
        with _without_autocast(x):
            run = self._launched if self.launches(x) else self._scan
            o, held = run(brought.values, held, sequences)
        state.update(held)
        if context.cache is not None:
            context.store(state)
        return self._finish(sequences.pack(o).to(x.dtype), x)

    def launches(self, x: Tensor) -> bool:
        """Whether a kernel runs the equations: there is none off a GPU."""
        if not (x.is_cuda and backend.kernels(x)):
            return False
        if self.problem is not None:
            backend.explain(f"plain PyTorch runs the recurrence {self.rule.name}: {self.problem}")
        return self.problem is None

    def _launched(
        self, values: dict[str, Value], held: Held, sequences: Sequences
    ) -> tuple[Tensor, Held]:
        """As _scan, in one launch."""
        operands = [values[each.name].tensor for each in self.rule.operands]
        o, after = scan(self.said, operands, list(held.values()), sequences.counts)
        return o, dict(zip(held, after, strict=True))

    def _scan(
        self, values: dict[str, Value], held: Held, sequences: Sequences
    ) -> tuple[Tensor, Held]:
        """o (N, T, value_heads, value_dim) and the states after the last token."""
        length, valid = sequences.length, sequences.valid if sequences.packed else None
        keep = torch.is_grad_enabled() and length > SEGMENT
        outputs = []
        for start in range(0, length, SEGMENT):
            part = slice(start, start + SEGMENT)
            tokens = {name: Value(y.tensor[:, part], y.axes) for name, y in values.items()}
            real = None if valid is None else valid[:, part]
            count = min(SEGMENT, length - start)
            if keep:
                o, held = checkpoint(self._tokens, tokens, held, count, real, use_reentrant=False)
            else:
                o, held = self._tokens(tokens, held, count, real)
            outputs.append(o)
        return torch.cat(outputs, dim=1), held

    def _tokens(
        self, tokens: dict[str, Value], held: Held, count: int, valid: Tensor | None
    ) -> tuple[Tensor, Held]:
        """`count` tokens, one after the other. What stands for no token changes no state."""
        constants = self._identities(held)
        axes = {each.name: each.axes for each in self.rule.states}
        outputs = []
        for t in range(count):
            known = {name: Value(y.tensor[:, t], y.axes) for name, y in tokens.items()}
            known |= {name: Value(held[name], axes[name]) for name in axes}
            known = self.equations({**constants, **known})
            outputs.append(known["o"].tensor)
            moved = {name: known[name].tensor for name in axes}
            if valid is not None:
                moved = {name: _where(valid[:, t], moved[name], held[name]) for name in axes}
            held = moved
        return torch.stack(outputs, dim=1), held

    def _identities(self, held: Held) -> dict[str, Value]:
        """I over keys and over values."""
        like = next(iter(held.values()))
        return {
            f"I.{axis}": Value(
                torch.eye(size, dtype=like.dtype, device=like.device)[None, None], (axis, axis)
            )
            for axis, size in self.sizes.items()
        }

    def _finish(self, o: Tensor, x: Tensor) -> Tensor:
        """(B, T, value_heads, value_dim) to (B, T, dim): norm, gate, projection."""
        if self.o_norm is not None:
            o = self.o_norm(o)
        if self.g_proj is not None:
            assert isinstance(self.output, GatedRMSNorm)
            gate = ACTIVATIONS[self.output.activation](self.g_proj(x))
            o = o * torch.unflatten(gate, -1, (self.value_heads, -1))
        y: Tensor = self.o_proj(o.flatten(-2))
        return y


def _where(valid: Tensor, moved: Tensor, held: Tensor) -> Tensor:
    """valid (N,); moved where it holds."""
    return torch.where(valid.view(-1, *[1] * (held.dim() - 1)), moved, held)


def _without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Autocast would round the matrix products of the float32 state."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
