"""The causal depthwise convolution: as a mixer, and as a part of others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.convolution.cut import MAX_KERNEL, Part
from ..kernels.convolution.op import convolve
from ..kernels.convolution.reference import convolution
from . import backend
from .activation import ACTIVATIONS
from .mixer import Context, Mixer, State


class CausalConv(nn.Module):
    """One filter of `kernel` taps per channel, over the padded view of a call."""

    def __init__(self, channels: int, kernel: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, kernel))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As nn.Conv1d: uniform within 1 / sqrt(taps)."""
        bound = self.weight.shape[1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def new_tail(self, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(N, kernel - 1, channels): the inputs before the first."""
        channels, kernel = self.weight.shape
        return torch.zeros(batch, kernel - 1, channels, dtype=dtype, device=device)

    def forward(self, x: Tensor, tail: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, channels), and the tail of the last call; gives the same of this one."""
        return convolution(x, self.weight, self.bias, tail, counts)


class Convolution(Mixer):
    """activation(causal depthwise convolution(x)), one filter per channel."""

    def __init__(
        self, dim: int, *, kernel: int = 4, activation: str = "none", bias: bool = False
    ) -> None:
        super().__init__()
        self.silu = activation == "silu"
        self.activation = ACTIVATIONS[activation]
        self.conv = CausalConv(dim, kernel, bias=bias)

    def new_state(
        self, batch: int, max_length: int | None, dtype: torch.dtype, device: torch.device
    ) -> State:
        return {"tail": self.conv.new_tail(batch, dtype, device)}

    def forward(self, x: Tensor, context: Context) -> Tensor:
        sequences = context.sequences
        if self._kernels_serve(x):
            return self._through_kernels(x, context)
        state = context.state or self.new_state(sequences.batch, None, x.dtype, x.device)
        y, tail = self.conv(sequences.pad(x), state["tail"], sequences.counts)
        if context.cache is not None:
            context.store({"tail": tail})
        return self.activation(sequences.pack(y))

    def _kernels_serve(self, x: Tensor) -> bool:
        if not backend.kernels(x):
            return False
        taps = self.conv.weight.shape[1]
        if taps > MAX_KERNEL:
            backend.explain(
                f"a convolution of {taps} taps in plain PyTorch: its kernel serves {MAX_KERNEL}"
            )
        return taps <= MAX_KERNEL

    def _through_kernels(self, x: Tensor, context: Context) -> Tensor:
        """One launch each way, on the call's own layout."""
        state, conv = context.state, self.conv
        (y,), tail = convolve(
            x,
            conv.weight,
            [Part(x.shape[-1], self.silu)],
            conv.bias,
            initial=None if state is None else state["tail"],
            cu_seqlens=context.sequences.cu_seqlens,
            keep_tail=state is not None,
        )
        if tail is not None:
            context.store({"tail": tail})
        return y if self.silu else self.activation(y)
