"""The CNN that scores tokens for learned eviction (LTE), over whole sequences or as a stream."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.decode.op import Scorer
from ..kernels.scorer import op
from ..kernels.scorer.packing import network_of, pack
from .keeps import Cnn
from .mixer import State
from .sequences import Sequences
from .weights import version


class CnnScorer(nn.Module):
    """One logit per token and KV head from [k; v], each head by a network of its own.

    Channels of a head: in_dim -> dim -> dim / 2 -> ... by dilated convolutions, each with dropout
    before and SiLU after, then a projection to 1. Each layer's input is zero outside the sequence.
    """

    def __init__(self, heads: int, in_dim: int, dim: int, cnn: Cnn) -> None:
        super().__init__()
        self.heads, self.dim, self.in_dim, self.cnn = heads, dim, in_dim, cnn
        self._packed: dict[torch.dtype, tuple[tuple[object, ...], Scorer]] = {}
        self.convs = nn.ModuleList()
        for index, (kernel, dilation) in enumerate(zip(cnn.kernels, cnn.dilations, strict=True)):
            out = dim // 2**index
            conv = nn.Conv1d(heads * in_dim, heads * out, kernel, dilation=dilation, groups=heads)
            self.convs.append(conv)
            in_dim = out
        self.proj = nn.Conv1d(heads * in_dim, heads, 1, groups=heads)
        self.dropout = nn.Dropout(cnn.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal weights; a projection bias that keeps every token at first."""
        for conv in [*self.convs, self.proj]:
            assert isinstance(conv, nn.Conv1d)
            conv.reset_parameters()
            nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
        assert self.proj.bias is not None
        nn.init.constant_(self.proj.bias, 0.5)

    def forward(self, kv: Tensor, sequences: Sequences) -> Tensor:
        """Logits of whole sequences, the last `lookahead` of each provisional.

        kv: (N, G, T, in_dim), zero where a sequence has no token. Returns (N, G, T).
        """
        valid = sequences.valid[:, None]
        x = kv.transpose(-1, -2).flatten(1, 2)
        for conv, reach in zip(self.convs, self.cnn.reaches, strict=True):
            x = F.silu(conv(F.pad(self.dropout(x), (reach, reach)))) * valid
        logits: Tensor = self.proj(x)
        return logits

    # ---------------------------------------------------------------------- through the kernels

    @property
    def parameters_in_order(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases of the convolutions, then of the projection."""
        layers = [*self.convs, self.proj]
        return [layer.weight for layer in layers], [layer.bias for layer in layers]

    def logits(self, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """(B, G, T), float32 at least, of k (B, T, G, D) and v (B, T, G, E), packed or not."""
        return self.logits_and_inputs(k, v, cu_seqlens)[0]

    def logits_and_inputs(
        self, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, *, dropout: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The logits, then k and v for what else reads them: see kernels/scorer/op.py."""
        p = self.cnn.dropout if dropout else 0.0
        # Drawn on the device: the same again where a checkpointed forward pass runs again.
        seed = torch.randint(2**62, (), device=k.device) if p else None
        options: dict[str, Any] = {"dilations": self.cnn.dilations, "dropout": p, "seed": seed}
        weights = self.parameters_in_order
        return op.logits_and_inputs(k, v, *weights, **options, cu_seqlens=cu_seqlens)

    def packed(self, dtype: torch.dtype) -> Scorer:
        """For steps: the weights as kernels read them, made anew when one has changed (a write
        through `.data` does not tell). Those of other dtypes stay: a CUDA graph may read them."""
        weights, biases = self.parameters_in_order
        key = tuple(map(version, [*weights, *biases]))
        if dtype not in self._packed or self._packed[dtype][0] != key:
            widths = self.dim, self.in_dim - self.dim
            network = network_of(*widths, weights, self.heads, self.cnn.dilations)
            made = pack([w.detach() for w in weights], [b.detach() for b in biases], network, dtype)
            self._packed[dtype] = key, Scorer(made, network)
        return self._packed[dtype][1]

    # -------------------------------------------------------------------------------- streaming

    def new_state(self, batch: int, dtype: torch.dtype, device: torch.device) -> State:
        """The last 2 * reach inputs of each layer: (N, channels, 2 * reach), zeros at first."""
        return {
            str(index): torch.zeros(batch, conv.in_channels, 2 * reach, dtype=dtype, device=device)
            for index, (conv, reach) in enumerate(zip(self.convs, self.cnn.reaches, strict=True))
            if isinstance(conv, nn.Conv1d)
        }

    def stream(self, kv: Tensor, sequences: Sequences, state: State) -> tuple[Tensor, State]:
        """The logits that new tokens make final: those of `lookahead` tokens before each of them.

        kv: (N, G, T, in_dim), the new tokens. Returns (N, G, T), where column i belongs to position
        offset + i - lookahead (meaningless below 0 and from `counts` on), and the new state.
        """
        x = kv.transpose(-1, -2).flatten(1, 2)
        positions = sequences.positions
        new_state = {}
        for index, (conv, reach) in enumerate(zip(self.convs, self.cnn.reaches, strict=True)):
            old = state[str(index)]
            x = torch.cat([old.to(x.dtype), x], dim=-1)
            new_state[str(index)] = _tail(x, sequences.counts, 2 * reach).to(old.dtype)
            positions = positions - reach
            x = F.silu(conv(x)) * (positions >= 0)[:, None]
        return self.proj(x), new_state


def _tail(x: Tensor, counts: Tensor, size: int) -> Tensor:
    """The last `size` columns of x (N, C, size + T) where row n has `counts[n]` new ones."""
    columns = counts[:, None] + torch.arange(size, device=x.device)
    return x.gather(-1, columns[:, None].expand(-1, x.shape[1], -1))
