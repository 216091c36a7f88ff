"""Softmax attention over what a keep leaves visible: training, packed calls, chunks and steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.attention.reference import alibi_slopes
from .call import Call, joined
from .chunk import SoftmaxRule
from .head_group import head_groups
from .keeps import Full, GatedKeep, Keep
from .linear import linear, together
from .mixer import Context, Mixer, State
from .norm import LayerNorm, RMSNorm
from .position import Alibi, Rope, rotated
from .store import nest, scoped

ROPE = Rope()
FULL = Full()


class Attention(Mixer):
    """Softmax attention (MHA, GQA, MQA) over the tokens that `keep` leaves visible.

    State: that of each group of KV heads that share a store, under `groups.<number>`.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        position: Rope | Alibi | None = ROPE,
        keep: Keep = FULL,
        qk_norm: RMSNorm | LayerNorm | None = None,
        bias: bool = False,
        gate: bool = False,
        softcap: float | None = None,
        sink_logits: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        if heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} KV heads do not divide {heads} heads")
        self.head_dim = head_dim or dim // heads
        self.value_dim = value_dim or self.head_dim
        self.position, self.keep = position, keep
        self.softcap, self.scale = softcap, scale or self.head_dim**-0.5
        self.q_proj = nn.Linear(dim, heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(dim, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(dim, self.kv_heads * self.value_dim, bias=bias)
        self.o_proj = nn.Linear(heads * self.value_dim, dim, bias=False)
        self.q_norm = None if qk_norm is None else qk_norm.sized(self.head_dim)
        self.k_norm = None if qk_norm is None else qk_norm.sized(self.head_dim)
        self.g_proj = nn.Linear(dim, heads * self.value_dim, bias=False) if gate else None
        self.sink_logits = nn.Parameter(torch.zeros(heads)) if sink_logits else None
        parts = len(keep.parts) if isinstance(keep, GatedKeep) else 0
        self.branch_gate = nn.Linear(dim, heads * parts, bias=False) if parts else None
        plain = softcap is None and not sink_logits and not isinstance(position, Alibi)
        self.groups, self.branches = head_groups(
            keep, self.kv_heads, self.head_dim, self.value_dim, plain
        )

    def reset_parameters(self) -> None:
        """Sink logits start at 0; every other weight belongs to a layer of its own."""
        if self.sink_logits is not None:
            nn.init.zeros_(self.sink_logits)

    def new_state(
        self, batch: int, max_length: int | None, dtype: torch.dtype, device: torch.device
    ) -> State:
        k = torch.zeros(batch, self.kv_heads, 0, self.head_dim, dtype=dtype, device=device)
        v = torch.zeros(batch, self.kv_heads, 0, self.value_dim, dtype=dtype, device=device)
        state: State = {}
        for index, group in enumerate(self.groups):
            own = group.new_state(self.branches, group.of_kv(k), group.of_kv(v), max_length)
            state |= nest(f"groups.{index}", own)
        return state

    def capture_problem(self, state: State) -> str | None:
        groups = enumerate(self.groups)
        held = all(group.on_kernels(scoped(f"groups.{index}", state)) for index, group in groups)
        return None if held else "its cache is that of plain PyTorch, whose work grows with it"

    def forward(self, x: Tensor, context: Context, residual: Tensor | None = None) -> Tensor:
        """(B, T, dim), added to a residual if one is given: a step does that in one launch."""
        call = self._call(x, context)
        self._check_length(call)
        y = self._attended(call, self._branch_gates(x)).flatten(2)
        if self.g_proj is not None:
            y = y * torch.sigmoid(self.g_proj(x))
        return linear(y, self.o_proj, residual)

    def _attended(self, call: Call, gates: Tensor | None) -> Tensor:
        """(B, T, H, E); leaves the new state with the cache."""
        old = call.context.state or {}
        state: State = {}
        parts, revocable = [], True
        for index, group in enumerate(self.groups):
            name = f"groups.{index}"
            own = call if group.everyone else call.of_heads(group.query_heads(call), group.heads)
            answer = group.attend(self.branches, own, scoped(name, old))
            state |= nest(name, answer.state)
            revocable &= answer.revocable
            outs = answer.outs
            if gates is None:
                parts.append(outs[0])
            else:
                parts.append((torch.stack(outs, dim=-1) * gates.unsqueeze(-2)).sum(-1))
        if call.cached:
            call.context.store(state, revocable=revocable)
        return joined(parts, [group.query_heads(call) for group in self.groups])

    def _call(self, x: Tensor, context: Context) -> Call:
        q, k, v, both = self._heads(x)
        q_norm, k_norm = self.q_norm, self.k_norm
        raw_k = None
        if any(group.reads_raw_keys(self.branches) for group in self.groups):
            k = raw_k = k if k_norm is None else k_norm(k)
            k_norm = None
        if isinstance(self.position, Rope):
            places = context.sequences.places
            if both is not None and self.q_norm is None:
                both = rotated(both, places, self.position)
                q, k = torch.split(both, [self.heads, self.kv_heads], dim=2)
            else:
                q = rotated(q, places, self.position, q_norm)
                k = rotated(k, places, self.position, k_norm)
        else:
            q = q if q_norm is None else q_norm(q)
            k = k if k_norm is None else k_norm(k)
        return Call(q, k, v, raw_k, self._rule(x), context)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q (B, T, H, D), k (B, T, G, D), v (B, T, G, E); also q and k as one, (B, T, H + G, D),
        where one launch made them."""
        layers = self.q_proj, self.k_proj, self.v_proj
        made, both = together(x, *layers), None
        if made is None:
            q, k, v = (layer(x) for layer in layers)
        else:
            q, k, v = torch.split(made, [layer.out_features for layer in layers], dim=-1)
            joint = made[..., : -v.shape[-1]]
            both = torch.unflatten(joint, -1, (self.heads + self.kv_heads, -1))
        q = torch.unflatten(q, -1, (self.heads, -1))
        k, v = (torch.unflatten(x, -1, (self.kv_heads, -1)) for x in (k, v))
        return q, k, v, both

    def _rule(self, x: Tensor) -> SoftmaxRule:
        slopes = None
        if isinstance(self.position, Alibi):
            slopes = alibi_slopes(self.heads, x.device)
        return SoftmaxRule(self.scale, self.softcap, self.sink_logits, slopes)

    def _branch_gates(self, x: Tensor) -> Tensor | None:
        """(B, T, H, branches), each in (0, 1)."""
        if self.branch_gate is None:
            return None
        gates = torch.sigmoid(self.branch_gate(x))
        return torch.unflatten(gates, -1, (self.heads, -1))

    def _check_length(self, call: Call) -> None:
        """Refuse to outgrow a cache that had to be allocated for a length."""
        cache = call.context.cache
        most = None if cache is None else cache.max_length
        if most is None or all(group.bounded(self.branches, most) for group in self.groups):
            return
        assert cache is not None
        reached = cache.reaches(call.sequences)
        if reached > most:
            raise ValueError(
                f"the cache was made for {most} tokens a sequence, and this call reaches {reached}"
            )
