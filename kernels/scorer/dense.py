"""The scorer op in plain PyTorch: what runs where Triton does not.

Shapes as in launch.py. The mathematics is reference.py's; here are the numbers that the backward
pass needs, and the gradients written out, as an op's own backward pass may not differentiate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from .network import Network
from .packing import Packed, flatten


def forward(
    k: Tensor,
    v: Tensor,
    packed: Packed,
    network: Network,
    dropped: int,
    seed: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """z, in float32 at least, and the numbers before each layer's SiLU: (B, G, T, outputs)."""
    precise = torch.promote_types(k.dtype, torch.float32)
    x = torch.cat([k, v], dim=-1).transpose(1, 2).to(precise)
    start, end = reference.bounds(x.shape[2], cu_seqlens, x.device)
    saved = []
    for layer in network.layers:
        x = drop(x, layer.index, dropped, seed)
        x = reference.convolve(
            x, _weights(packed, network, layer.index), layer.dilation, start, end
        )
        x = x + _bias(packed, network, layer.index)
        saved.append(x.to(k.dtype))
        x = torch.nn.functional.silu(x)
    return (x * _projection(packed, network)).sum(-1) + packed.vectors[:, -1:], saved


def backward(
    dz: Tensor,
    others: tuple[Tensor | None, Tensor | None],
    k: Tensor,
    v: Tensor,
    packed: Packed,
    network: Network,
    saved: list[Tensor],
    dropped: int,
    seed: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of k and v, with the others added, and the flat one of weights and biases."""
    precise = torch.promote_types(k.dtype, torch.float32)
    x = torch.cat([k, v], dim=-1).transpose(1, 2).to(precise)
    start, end = reference.bounds(x.shape[2], cu_seqlens, x.device)
    inputs = [x, *(torch.nn.functional.silu(y.to(precise)) for y in saved)]
    d = dz[..., None] * _projection(packed, network)
    weights = [(dz[..., None] * inputs[-1]).sum((0, 2))]
    biases = [dz.sum((0, 2))]
    for layer in reversed(network.layers):
        d = d * silu_gradient(saved[layer.index].to(precise))
        biases.insert(0, d.sum((0, 2)))
        seen = drop(inputs[layer.index], layer.index, dropped, seed)
        w = _weights(packed, network, layer.index)
        dw, dx = [], torch.zeros_like(seen)
        for tap in range(layer.taps):
            there = reference.shifted(d, (layer.taps // 2 - tap) * layer.dilation, start, end)
            dw.append(torch.einsum("bgtc,bgto->goc", seen, there))
            dx += torch.einsum("bgto,goc->bgtc", there, w[..., tap])
        weights.insert(0, torch.stack(dw, -1))
        d = drop(dx, layer.index, dropped, seed)
    d = d.transpose(1, 2)
    parts = d[..., : k.shape[-1]], d[..., k.shape[-1] :]
    dk, dv = (
        (part if other is None else part + other).to(k.dtype).contiguous()
        for part, other in zip(parts, others, strict=True)
    )
    return dk, dv, flatten(weights, biases)


def rows(
    k: Tensor, v: Tensor, z: Tensor, packed: Packed, network: Network, begin: Tensor, count: int
) -> None:
    """As launch.rows; waits for begin."""
    wanted = network.lookahead
    for sequence, first in enumerate(begin.tolist()):
        if first < 0:
            continue
        position = torch.arange(max(0, first - wanted), first + count + wanted, device=k.device)
        parts = [x[sequence, :, position % x.shape[2]].transpose(0, 1)[None] for x in (k, v)]
        found, _ = forward(parts[0], parts[1], packed, network, 0, None, None)
        skip = min(first, wanted)
        place = (first + torch.arange(count, device=k.device)) % z.shape[2]
        z[sequence, :, place] = found[0, :, skip : skip + count].to(z.dtype)


def drop(x: Tensor, layer: int, dropped: int, seed: Tensor | None) -> Tensor:
    """x (B, G, T, C) after dropout, or its gradient: both are multiplied by the same numbers."""
    if not dropped or seed is None:
        return x
    keep = reference.kept(seed, layer, tuple(x.shape), dropped, x.device)
    return x * keep * (reference.DROPOUT_STEPS / (reference.DROPOUT_STEPS - dropped))


def silu_gradient(x: Tensor) -> Tensor:
    s = x.sigmoid()
    return s * (1 + x * (1 - s))


def _weights(packed: Packed, network: Network, index: int) -> Tensor:
    """(G, outputs, inputs, taps) of one layer."""
    layer = network.layers[index]
    flat = packed.weights[:, layer.weights : layer.weights + layer.size]
    shaped = flat.view(network.heads, layer.taps, layer.inputs, layer.outputs)
    return shaped.permute(0, 3, 2, 1).to(packed.vectors.dtype)


def _bias(packed: Packed, network: Network, index: int) -> Tensor:
    """(G, 1, outputs) of one layer."""
    layer = network.layers[index]
    return packed.vectors[:, None, layer.bias : layer.bias + layer.outputs]


def _projection(packed: Packed, network: Network) -> Tensor:
    """(G, 1, outputs of the last layer)."""
    return packed.vectors[:, None, network.projection : -1]
