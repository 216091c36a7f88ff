"""Scorers to try: networks, inputs and weights, and the reference's gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixerlang.kernels.scorer import reference
from mixerlang.kernels.scorer.network import Network

SEED = -(2**62) + 987654321


class Inputs(NamedTuple):
    """Arguments of op.logits: k (B, T, G, D), v (B, T, G, E), Conv1d weights and biases."""

    k: Tensor
    v: Tensor
    weights: list[Tensor]
    biases: list[Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        return [self.k, self.v, *self.weights, *self.biases]

    def wide(self) -> Inputs:
        """In float64, to be differentiated."""
        found = [x.detach().double().requires_grad_() for x in self.leaves]
        n = len(self.weights)
        return Inputs(found[0], found[1], found[2 : 2 + n], found[2 + n :])


def make(
    network: Network,
    tokens: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> Inputs:
    """Random inputs; weights that keep the size of what goes through them, float32 at least."""
    torch.manual_seed(seed)
    heads = network.heads
    k, v = (
        torch.randn(batch, tokens, heads, dim, device=device).to(dtype)
        for dim in (network.key_dim, network.value_dim)
    )
    shapes = [(heads * layer.outputs, layer.inputs, layer.taps) for layer in network.layers] + [
        (heads, network.channels[-1], 1)
    ]
    precise = torch.promote_types(dtype, torch.float32)
    weights = [
        torch.randn(shape, device=device).to(dtype).to(precise) * (2 / (shape[1] * shape[2])) ** 0.5
        for shape in shapes
    ]
    biases = [0.1 * torch.randn(shape[0], device=device, dtype=precise) for shape in shapes]
    found = Inputs(k, v, weights, biases)
    for x in found.leaves:
        x.requires_grad_()
    return found


def oracle(
    inputs: Inputs,
    network: Network,
    dz: Tensor,
    dropped: int = 0,
    cu_seqlens: Tensor | None = None,
) -> list[Tensor]:
    """z and the gradients of k, v, weights and biases, in float64."""
    wide = inputs.wide()
    z = reference.logits(
        *wide, network.dilations, dropped=dropped, seed=SEED, cu_seqlens=cu_seqlens
    )
    return [z, *torch.autograd.grad(z, wide.leaves, dz.double())]


def relative(found: Tensor, expected: Tensor) -> float:
    """Error against the size of what was expected."""
    scale = max(expected.norm().item(), 1e-3 * expected.numel() ** 0.5)
    return (found.double() - expected).norm().item() / scale
