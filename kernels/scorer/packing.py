"""A scorer's weights as its kernels read them: one array per head, and back for gradients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .network import Network


class Packed(NamedTuple):
    """weights (G, network.weights): (taps, inputs, outputs) of each layer; vectors
    (G, network.vectors) float32: each layer's biases, the projection's weights and its bias."""

    weights: Tensor
    vectors: Tensor


def network_of(
    k_dim: int, v_dim: int, weights: Sequence[Tensor], heads: int, dilations: tuple[int, ...]
) -> Network:
    """The network of grouped Conv1d weights (G * outputs, inputs, taps), the projection last."""
    convs = weights[:-1]
    channels = tuple(w.shape[0] // heads for w in convs)
    return Network(heads, k_dim, v_dim, channels, tuple(w.shape[2] for w in convs), dilations)


def pack(
    weights: Sequence[Tensor], biases: Sequence[Tensor], network: Network, dtype: torch.dtype
) -> Packed:
    """Conv1d weights (G * outputs, inputs, taps) and biases (G * outputs,), the projection last."""
    heads = network.heads
    packed = weights[0].new_empty(heads, network.weights, dtype=dtype)
    for layer, w in zip(network.layers, weights, strict=False):
        place = packed[:, layer.weights : layer.weights + layer.size]
        by_tap = w.reshape(heads, layer.outputs, layer.inputs, layer.taps).permute(0, 3, 2, 1)
        place.view(by_tap.shape).copy_(by_tap)
    vectors = [x.reshape(heads, -1) for x in (*biases[:-1], weights[-1], biases[-1])]
    return Packed(packed, torch.cat(vectors, 1).to(torch.promote_types(dtype, torch.float32)))


def flatten(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Gradients one after another, as `unflatten` takes them."""
    return torch.cat([x.reshape(-1) for x in (*weights, *biases)])


def unflatten(gradient: Tensor, network: Network) -> list[Tensor]:
    """Views of a flat gradient (network.places[-1],), shaped as weights, then as biases."""
    heads, places = network.heads, network.places
    shapes = [(heads * x.outputs, x.inputs, x.taps) for x in network.layers]
    shapes.append((heads, network.channels[-1], 1))
    flat = [gradient[low:high] for low, high in pairwise(places)]
    weights = [x.view(shape) for x, shape in zip(flat, shapes, strict=False)]
    return [*weights, *flat[len(shapes) :]]
