"""Render a scorer's kernels from the templates: text in, text out, the same bytes every time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .network import Layer, Network, block, padded
from .tiles import tiles

if TYPE_CHECKING:
    import jinja2

PASSES = ("pack", "forward", "backward_inputs", "backward_weights")
ROLLING = ("forward_rolling", "backward_inputs_rolling")
"""In place of `forward` and `backward_inputs`, where network.rolls."""


def sources(network: Network) -> dict[str, str]:
    """Every pass in any dtype, by the name of its file."""
    names = (*PASSES, *(ROLLING if network.rolls(2) else ()))
    return {network.stem(name): render(name, network) for name in names}


def render(name: str, network: Network) -> str:
    """The source of one of PASSES or ROLLING."""
    layers = network.layers
    context = {
        "template": f"{name}.py.jinja",
        "network": network,
        "layers": layers,
        "summary": summary(network),
        "tiles": tiles(name, network),
        "block": block,
        "groups": [groups(network, layer) for layer in layers],
        "scratch": [place(network, layer.index) for layer in layers[:-1]],
        "input_places": input_places(network),
        "input_padding": 2 * layers[0].reach * layers[0].inputs,
        "widths": (min(64, padded(network.key_dim)), min(64, padded(network.value_dim))),
        "padding": network.padding(len(layers) - 1),
        "done": [
            network.lookahead - sum(x.reach for x in layers[: i + 1]) for i in range(len(layers))
        ],
        "pre": ", ".join(f"pre{layer.index}_ptr" for layer in layers),
        "grads": ", ".join(f"d{layer.index}_ptr" for layer in layers),
        "padded": padded,
        "inputs": [whole(network, layer) for layer in layers],
        "reaches": [layer.reach // network.phases for layer in layers],
        "befores": [sum(y.reach for y in layers[: x.index + 1]) // network.phases for x in layers],
        "afters": [sum(y.reach for y in layers[x.index :]) // network.phases for x in layers],
        "parts": vectors(network),
        "places": network.places,
        "cuts": network.cuts,
    }
    return _environment().get_template(f"{name}.py.jinja").render(context)


class Block(NamedTuple):
    """Channels of one source that are multiplied at once: `width` of `channels`, from `start` on,
    `first` + start on among the layer's inputs. source: its pointer, stride, ring and place."""

    source: str
    channels: int
    first: int
    start: int
    width: int


def groups(network: Network, layer: Layer) -> list[list[Block]]:
    """A layer's inputs, by loops over its taps: as many in each as its stages can hold."""
    if layer.index == 0:
        parts = [
            ("k_ptr, k_row, k_ring, first_row", network.key_dim, 0),
            ("v_ptr, v_row, v_ring, first_row", network.value_dim, network.key_dim),
        ]
    else:
        parts = [(f"{place(network, layer.index - 1)}, {layer.inputs}, None, 0", layer.inputs, 0)]
    most = 128 if layer.width <= 64 else 64
    found: list[list[Block]] = [[]]
    for source, channels, first in parts:
        width = block(channels)
        for start in range(0, channels, width):
            if sum(other.width for other in found[-1]) + width > most:
                found.append([])
            found[-1].append(Block(source, channels, first, start, width))
    return found


def whole(network: Network, layer: Layer) -> list[Block]:
    """A layer's inputs where they pass from layer to layer without a way through memory."""
    if layer.index > 0:
        return [Block("x", layer.inputs, 0, 0, padded(layer.inputs))]
    parts = (("k", network.key_dim, 0), ("v", network.value_dim, network.key_dim))
    return [
        Block(source, channels, first, start, block(channels))
        for source, channels, first in parts
        for start in range(0, channels, block(channels))
    ]


def vectors(network: Network) -> list[tuple[str, int, int]]:
    """The parts of a head's packed vectors: argument, start and size."""
    biases = [(f"b{layer.index}", layer.bias, layer.outputs) for layer in network.layers]
    last = network.vectors - 1
    return [*biases, ("wz", network.projection, network.channels[-1]), ("bz", last, 1)]


def place(network: Network, index: int) -> str:
    """Where row 0 of a layer's activations stands in the scratch."""
    channels, padding = sum(network.channels[:index]), network.padding(index)
    before = network.layers[index + 1].reach * network.channels[index]
    return f"scratch_ptr + BLOCK * {channels} + {padding + before}"


def input_places(network: Network) -> tuple[str, str]:
    """Where row 0 of k and of v stands in the scratch after dropout: behind the activations."""
    channels, reach = sum(network.channels[:-1]), network.layers[0].reach
    padding = network.padding(len(network.channels) - 1) + reach * network.key_dim
    k = f"scratch_ptr + BLOCK * {channels} + {padding}"
    padding += reach * (network.key_dim + network.value_dim)
    return k, f"scratch_ptr + BLOCK * {channels + network.key_dim} + {padding}"


def summary(network: Network) -> str:
    """One line for a reader of the rendered file."""
    dims = (network.key_dim + network.value_dim, *network.channels, 1)
    chain = " -> ".join(map(str, dims))
    kernels = ", ".join(map(str, network.kernels))
    dilations = ", ".join(map(str, network.dilations))
    return f"{network.heads} heads, channels {chain}; kernels of {kernels}, dilations {dilations}."


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # a folder that carries its rendered kernels does without

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
