"""Softmax attention over what a keep leaves visible: training, packed calls, chunks and steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.attention.reference import alibi_slopes
from .chunk import Chunk, SoftmaxRule
from .head_group import head_groups
from .keeps import Full, GatedKeep, Keep
from .mixer import Context, Mixer, State
from .norm import LayerNorm, RMSNorm
from .position import Alibi, Rope, apply_rope
from .sequences import Sequences
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
        self.groups, self.branches = head_groups(keep, self.kv_heads, self.head_dim, self.value_dim)

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

    def forward(self, x: Tensor, context: Context) -> Tensor:
        sequences = context.sequences
        q = self._heads(self.q_proj(x), self.heads, sequences, self.q_norm)
        raw_k = self._heads(self.k_proj(x), self.kv_heads, sequences, self.k_norm)
        v = self._heads(self.v_proj(x), self.kv_heads, sequences)
        k = self._rotated(raw_k, sequences)
        chunk = Chunk(self._rotated(q, sequences), raw_k, self._rule(x), _seen(context), context)
        self._check_length(chunk)
        out = self._attended(chunk, k, v, self._branch_gates(x, sequences))
        y = sequences.pack(out.transpose(1, 2).flatten(2))
        if self.g_proj is not None:
            y = y * torch.sigmoid(self.g_proj(x))
        result: Tensor = self.o_proj(y)
        return result

    def _attended(self, chunk: Chunk, k: Tensor, v: Tensor, gates: Tensor | None) -> Tensor:
        """(N, H, T, E); leaves the new state with the cache."""
        old = chunk.context.state or {}
        state: State = {}
        outs = []
        for index, group in enumerate(self.groups):
            name = f"groups.{index}"
            own = group.of_chunk(chunk)
            branch_outs, new = group.attend(
                self.branches, own, group.of_kv(k), group.of_kv(v), scoped(name, old)
            )
            state |= nest(name, new)
            if gates is None:
                outs.append(branch_outs[0])
            else:
                outs.append((torch.stack(branch_outs, dim=-1) * gates.unsqueeze(-2)).sum(-1))
        if chunk.cached:
            chunk.context.store(state)
        if len(outs) == 1:
            return outs[0]
        heads = [head for group in self.groups for head in group.query_heads(self.heads)]
        return torch.cat(outs, dim=1)[:, torch.tensor(heads, device=k.device).argsort()]

    def _heads(
        self, y: Tensor, heads: int, sequences: Sequences, norm: nn.Module | None = None
    ) -> Tensor:
        """(B, T, heads * D) to (N, heads, T, D), zero where a sequence has no token."""
        y = y.reshape(*y.shape[:-1], heads, -1)
        if norm is not None:
            y = norm(y)
        return sequences.pad(y).transpose(1, 2)

    def _rotated(self, y: Tensor, sequences: Sequences) -> Tensor:
        if not isinstance(self.position, Rope):
            return y
        return apply_rope(y, sequences.positions, self.position.theta, self.position.fraction)

    def _rule(self, x: Tensor) -> SoftmaxRule:
        slopes = None
        if isinstance(self.position, Alibi):
            slopes = alibi_slopes(self.heads).to(x.device)
        return SoftmaxRule(self.scale, self.softcap, self.sink_logits, slopes)

    def _branch_gates(self, x: Tensor, sequences: Sequences) -> Tensor | None:
        """(N, H, T, branches), each in (0, 1)."""
        if self.branch_gate is None:
            return None
        gates = torch.sigmoid(self.branch_gate(x))
        return self._heads(gates, self.heads, sequences)

    def _check_length(self, chunk: Chunk) -> None:
        """Refuse to outgrow a cache that had to be allocated for a length."""
        most = None if chunk.context.cache is None else chunk.context.cache.max_length
        if most is None or all(group.bounded(self.branches, most) for group in self.groups):
            return
        reached = int(chunk.next.max())
        if reached > most:
            raise ValueError(
                f"the cache was made for {most} tokens a sequence, and this call reaches {reached}"
            )


def _seen(context: Context) -> int:
    """The largest number of tokens that a sequence had before this call."""
    return 0 if context.cache is None else int(context.sequences.offsets.max())
