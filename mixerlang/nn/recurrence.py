"""The recurrence: a point in the space decay x update x features x normalizer.

The state S (key_dim, value_dim) of each value head goes, per token,

    S = decay * S
    S += b k v^T                      (update = additive)
    S += b k (v - S^T k)^T            (update = delta, with the already decayed S)
    o = scale * S^T q                 (over scale * z^T q with normalizer = sum, z += b k)

Shapes: N sequences of T tokens in the padded view of a call, (B, T) in its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.recurrence import chunked, reference
from ..kernels.recurrence.step_state import Weights
from . import backend, fused_recurrence
from .activation import ACTIVATIONS
from .convolution import CausalConv
from .decay import Additive, Decay, Delta, NoDecay, Shape, Update, widen
from .features import Feature, Identity
from .linear import linear
from .mixer import Context, Mixer, Sequences, State
from .norm import RMSNorm
from .position import Rope, rotated
from .projection import projection


@dataclass(frozen=True)
class PlainOutput:
    """S^T q as it is."""


@dataclass(frozen=True)
class RMSNormOutput:
    """RMSNorm of each head, one weight of value_dim shared by the heads."""

    eps: float = 1e-6


@dataclass(frozen=True)
class GatedRMSNorm:
    """RMSNorm of each head times activation(Linear(x))."""

    activation: str = "silu"
    rank: int | None = None
    eps: float = 1e-6


Output = PlainOutput | RMSNormOutput | GatedRMSNorm

# Defaults, as the language has them.
IDENTITY, NO_DECAY, ADDITIVE, NORM = Identity(), NoDecay(), Additive(), RMSNormOutput()


class Recurrence(Mixer):
    """A linear recurrence with a matrix state per head.

    q, k and v are projected, convolved (`conv`), mapped (`features`, `values`), then rotated
    (`position`); with keys = complement, k is 1 - a and only q has a map.
    State: S (N, value_heads, K, value_dim) and, with normalizer = sum, z (N, value_heads, K), in
    float32 (K is key_dim, or the width of the features); the tails of q_conv, k_conv and v_conv.
    Through kernels: that of kernels/recurrence/step_state.py.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        value_heads: int,
        key_dim: int,
        value_dim: int,
        features: Feature = IDENTITY,
        values: Feature = IDENTITY,
        decay: Decay = NO_DECAY,
        update: Update = ADDITIVE,
        normalizer: str = "none",
        keys: str = "linear",
        position: Rope | None = None,
        conv: int = 0,
        skip: bool = False,
        output: Output = NORM,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.value_heads = heads, value_heads
        self.state_shape = (value_heads, features.width(key_dim), value_dim)
        self.normalize = normalizer == "sum"
        self.update = update
        self.position = position
        self.output = output
        self.scale = key_dim**-0.5 if scale is None else scale
        key_width, value_width = heads * key_dim, value_heads * value_dim

        def conv_of(channels: int) -> CausalConv | None:
            return CausalConv(channels, conv) if conv else None

        self.q_proj = nn.Linear(dim, key_width, bias=False)
        self.q_conv = conv_of(key_width)
        self.q_map = features.build(heads, key_dim)
        linear_keys = keys == "linear"
        self.k_proj = nn.Linear(dim, key_width, bias=False) if linear_keys else None
        self.k_conv = conv_of(key_width) if linear_keys else None
        self.k_map = features.build(heads, key_dim) if linear_keys else None
        self.v_proj = nn.Linear(dim, value_width, bias=False)
        self.v_conv = conv_of(value_width)
        self.v_map = values.build(value_heads, value_dim)

        self.decay = decay.build(dim, Shape(heads, value_heads, key_dim))
        self.b_proj = nn.Linear(dim, value_heads, bias=False) if update.gated else None
        self.D = nn.Parameter(torch.empty(value_heads)) if skip else None

        self.o_norm = self.g_proj = None
        if not isinstance(output, PlainOutput):
            self.o_norm = RMSNorm(value_dim, eps=output.eps)
        if isinstance(output, GatedRMSNorm):
            self.g_proj = projection(dim, value_width, output.rank)
        self.o_proj = nn.Linear(value_width, dim, bias=False)
        self.plan = fused_recurrence.plan(
            features=features, values=values, decay=decay, update=update, position=position,
            heads=heads, value_heads=value_heads, key_dim=key_dim, value_dim=value_dim, conv=conv,
            complement=not linear_keys, normalize=self.normalize, skip=skip, scale=self.scale,
            **_of_output(output),
        )  # fmt: skip
        self.packed: tuple[tuple[tuple[int, int], ...], Weights] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.D is not None:
            nn.init.ones_(self.D)

    def new_state(
        self, batch: int, max_length: int | None, dtype: torch.dtype, device: torch.device
    ) -> State:
        if self.plan.rule is not None and backend.available(device, dtype):
            return fused_recurrence.new_state(self.plan.rule, batch, dtype, device)
        wide = torch.promote_types(dtype, torch.float32)
        state = {"S": torch.zeros(batch, *self.state_shape, dtype=wide, device=device)}
        if self.normalize:
            state["z"] = torch.zeros(batch, *self.state_shape[:2], dtype=wide, device=device)
        for name, module in self.named_children():
            if isinstance(module, CausalConv):
                state[name] = module.new_tail(batch, dtype, device)
        return state

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if self._on_kernels(x, context):
            o: Tensor = fused_recurrence.mix(self, x, context)
            return linear(o.flatten(-2), self.o_proj)
        return self._in_plain_pytorch(x, context)

    def _on_kernels(self, x: Tensor, context: Context) -> bool:
        if context.state is not None:
            return fused_recurrence.holds(context.state)
        if not backend.kernels(x):
            return False
        if self.plan.reason is not None:
            backend.explain(f"a recurrence in plain PyTorch: {self.plan.reason}")
        return self.plan.rule is not None

    def projections(self) -> dict[str, nn.Module]:
        """What maps a call's input, by the names that the kernels give to the results."""
        found = {"q": self.q_proj, "k": self.k_proj, "v": self.v_proj, "a": self.decay.a_proj}
        found |= {"b": self.b_proj, "gate": self.g_proj}
        return {name: module for name, module in found.items() if module is not None}

    def gates(
        self, x: Tensor, a: Tensor | None, b: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """g (B, T, value_heads) or (B, T, heads, key_dim), and b (B, T, value_heads), of what the
        projections of decay and step make of x."""
        g, step = self.decay.of(x if a is None else a)
        if b is not None:
            scale = self.update.scale if isinstance(self.update, Delta) else 1.0
            return g, scale * torch.sigmoid(widen(b))
        takes_step = isinstance(self.update, Additive) and self.update.step
        return g, step if takes_step else None

    def _in_plain_pytorch(self, x: Tensor, context: Context) -> Tensor:
        sequences = context.sequences
        state = dict(context.state or self.new_state(sequences.batch, None, x.dtype, x.device))
        a = None if self.decay.a_proj is None else self.decay.a_proj(x)
        gates = self.gates(x, a, None if self.b_proj is None else self.b_proj(x))
        g, b = (None if y is None else sequences.pad(y) for y in gates)
        q = self.q_map(self._heads("q_conv", self.q_proj(x), self.heads, sequences, state))
        v = self.v_map(self._heads("v_conv", self.v_proj(x), self.value_heads, sequences, state))
        k = self._keys(x, g, sequences, state)
        if self.position is not None:
            q, k = (rotated(y, sequences.positions, self.position) for y in (q, k))
        if sequences.packed:  # what stands for no token must not be written
            k = k.masked_fill(~sequences.valid[..., None, None], 0)
        o = self._recur(q, k, v, g, b, state)
        if context.cache is not None:
            context.store(state)
        return self._finish(sequences.pack(o), x)

    def _heads(
        self, conv: str, y: Tensor, heads: int, sequences: Sequences, state: State
    ) -> Tensor:
        """(B, T, channels) to (N, T, heads, channels / heads), through the convolution if any,
        whose tail in `state` moves on."""
        y = sequences.pad(y)
        if conv in state:
            y, state[conv] = self.get_submodule(conv)(y, state[conv], sequences.counts)
        return torch.unflatten(y, -1, (heads, -1))

    def _keys(self, x: Tensor, g: Tensor | None, sequences: Sequences, state: State) -> Tensor:
        if self.k_proj is None or self.k_map is None:
            assert g is not None, "keys = complement goes with a vector decay"
            return -torch.expm1(g)
        keys: Tensor = self.k_map(
            self._heads("k_conv", self.k_proj(x), self.heads, sequences, state)
        )
        return keys

    def _recur(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, b: Tensor | None, state: State
    ) -> Tensor:
        """o (N, T, value_heads, value_dim); S and z in `state` move on."""
        recurrence = reference.recurrence if q.shape[1] == 1 else chunked.recurrence
        with fused_recurrence.without_autocast(v):
            o, state["S"], z = recurrence(
                q, k, v, g, b, state["S"], state.get("z"),
                delta=isinstance(self.update, Delta), normalize=self.normalize, scale=self.scale,
            )  # fmt: skip
        if z is not None:
            state["z"] = z
        return o if self.D is None else o + self.D[:, None] * v

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


def _of_output(output: Output) -> dict[str, Any]:
    """As the rule of a step has it."""
    if isinstance(output, PlainOutput):
        return {"output": "none"}
    word = output.activation if isinstance(output, GatedRMSNorm) else "rmsnorm"
    return {"output": word, "eps": output.eps}
