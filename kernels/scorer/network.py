"""What a scorer's kernels are specialised on: the network's shape, and how its weights lie packed.

Imports nothing but the standard library, so that checks and analysis may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import NamedTuple

MAX_LAYERS = 8
MAX_CHANNELS = 256
MAX_LOOKAHEAD = 24
WIDEST_OUTPUT = 128
NARROWEST = 16  # a matrix unit's inner dimension
ROLLED_WEIGHTS = 72 * 1024  # bytes that may stay in shared memory, beside what is on its way
ROLLED_SUMS = 224  # numbers that may wait in registers for each row


@dataclass(frozen=True)
class Layer:
    """One convolution: `inputs` channels at `taps` rows, `dilation` apart, to `outputs` channels.

    weights: where its (taps, inputs, outputs) begin in the packed weights of a head.
    bias: where its outputs' biases begin in the packed vectors of a head.
    """

    index: int
    inputs: int
    outputs: int
    taps: int
    dilation: int
    weights: int
    bias: int

    @property
    def reach(self) -> int:
        """How many rows it reads on either side of its own."""
        return self.taps // 2 * self.dilation

    @property
    def width(self) -> int:
        """Output channels that are computed at once: a power of two, the last block padded."""
        return min(WIDEST_OUTPUT, padded(self.outputs))

    @property
    def size(self) -> int:
        """Numbers of its weights per head."""
        return self.taps * self.inputs * self.outputs


class Cut(NamedTuple):
    """What one program of a layer's weight gradients takes: `inputs` channels by `width` outputs
    of `taps` taps. rows, columns, groups: blocks of inputs, of outputs and of taps. ragged: the
    last block of inputs is not full."""

    inputs: int
    width: int
    taps: int
    rows: int
    columns: int
    groups: int
    ragged: bool

    @property
    def blocks(self) -> int:
        """Programs per run of rows."""
        return self.rows * self.columns * self.groups


@dataclass(frozen=True)
class Network:
    """Convolutions over [k; v] with SiLU after each, then a projection to one logit, by KV head.

    channels, kernels, dilations: of each convolution, first to last; kernels are odd.
    """

    heads: int
    key_dim: int
    value_dim: int
    channels: tuple[int, ...]
    kernels: tuple[int, ...] = (3, 3, 3)
    dilations: tuple[int, ...] = (2, 2, 2)

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str | None:
        """Which constraint does not hold, with the nearest legal value."""
        layers = len(self.channels)
        if not 1 <= layers <= MAX_LAYERS:
            return f"a scorer has 1 to {MAX_LAYERS} layers, not {layers}"
        if not layers == len(self.kernels) == len(self.dilations):
            return (
                f"{layers} layers want as many kernels and dilations, not {len(self.kernels)} "
                f"and {len(self.dilations)}"
            )
        for kernel in self.kernels:
            if kernel < 1 or kernel % 2 == 0:
                return f"a kernel spans an odd number of tokens, not {kernel}: nearest {kernel | 1}"
        if min(self.dilations) < 1:
            return f"dilations are 1 or more, not {min(self.dilations)}"
        for name, dim in (("keys", self.key_dim), ("values", self.value_dim)):
            if not 1 <= dim <= MAX_CHANNELS:
                return f"{name} of {dim} channels: the scorer serves 1 to {MAX_CHANNELS}"
        if not 1 <= min(self.channels) <= max(self.channels) <= MAX_CHANNELS:
            return f"layers of {self.channels} channels: the scorer serves 1 to {MAX_CHANNELS}"
        if self.lookahead > MAX_LOOKAHEAD:
            return f"a logit reads {self.lookahead} tokens ahead: the scorer serves {MAX_LOOKAHEAD}"
        return None

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The convolutions, each with its place in the packed weights."""
        found: list[Layer] = []
        inputs, weights, bias = self.key_dim + self.value_dim, 0, 0
        rows = zip(self.channels, self.kernels, self.dilations, strict=True)
        for index, (outputs, taps, dilation) in enumerate(rows):
            found.append(Layer(index, inputs, outputs, taps, dilation, weights, bias))
            inputs, weights, bias = outputs, weights + found[-1].size, bias + outputs
        return tuple(found)

    @property
    def lookahead(self) -> int:
        """Future tokens that a logit reads; as many past ones."""
        return sum(layer.reach for layer in self.layers)

    @property
    def phases(self) -> int:
        """Tokens in the longest stride that every convolution's taps lie on: a power of two."""
        common = gcd(*(layer.dilation for layer in self.layers if layer.taps > 1)) or 1
        return common & -common

    def rolls(self, size: int, target: str = "sm_90") -> bool:
        """Whether rows walk along the tokens: weights of `size` bytes a number then stay in shared
        memory, and what waits for later steps in registers. Measured on Hopper alone."""
        if size != 2 or target != "sm_90" or max(self.channels) > WIDEST_OUTPUT:
            return False
        weights = sum(x.taps * padded(x.inputs) * x.width for x in self.layers)
        sums = sum(2 * x.reach // self.phases * x.width for x in self.layers)
        return size * weights <= ROLLED_WEIGHTS and sums <= ROLLED_SUMS

    @property
    def halo(self) -> int:
        """Rows at either end of a stretch that lack neighbours in layers after the first."""
        return self.lookahead - self.layers[0].reach

    def padding(self, index: int) -> int:
        """Numbers in rows beside a stretch that the first `index` layers' successors read."""
        pairs = zip(self.channels[:index], self.layers[1:], strict=False)
        return sum(2 * after.reach * channels for channels, after in pairs)

    def scratch(self, rows: int, dropout: bool) -> int:
        """Numbers that a program of the forward pass hands on between its layers, for `rows`."""
        last, first = len(self.channels) - 1, self.layers[0]
        inputs = (rows + 2 * first.reach) * first.inputs if dropout else 0
        return max(1, inputs + rows * sum(self.channels[:last]) + self.padding(last))

    @property
    def weights(self) -> int:
        """Packed weights of a head: (taps, inputs, outputs) of each layer, one after another."""
        return sum(layer.size for layer in self.layers)

    @property
    def projection(self) -> int:
        """Where the projection begins in the packed vectors: its weights, then its bias."""
        return sum(self.channels)

    @property
    def vectors(self) -> int:
        """Packed vectors of a head: each layer's biases, the projection's weights, its bias."""
        return self.projection + self.channels[-1] + 1

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Where each tensor's gradient begins in the flat array of all heads': weights of the
        layers, of the projection, biases of the layers, of the projection; then their number."""
        biases = [*self.channels, 1]
        sizes = [*(layer.size for layer in self.layers), self.channels[-1], *biases]
        return tuple(self.heads * sum(sizes[:index]) for index in range(len(sizes) + 1))

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """How each layer's weight gradients are cut: at most three 64 x 64 sums in a program."""
        return tuple(self._cut(layer) for layer in self.layers)

    def _cut(self, layer: Layer) -> Cut:
        inputs, width = min(64, padded(layer.inputs)), min(64, padded(layer.outputs))
        taps = min(3, layer.taps)
        return Cut(
            *(inputs, width, taps),
            rows=-(-layer.inputs // inputs),
            columns=-(-layer.outputs // width),
            groups=-(-layer.taps // taps),
            ragged=layer.inputs % inputs != 0,
        )

    def stem(self, name: str) -> str:
        """What the rendered file of a pass is called; no two networks share a name."""
        numbers = [
            "_".join(f"{prefix}{number}" for number in row)
            for prefix, row in zip(
                "ckr", (self.channels, self.kernels, self.dilations), strict=True
            )
        ]
        return "_".join(
            [f"scorer_{name}", f"h{self.heads}", f"d{self.key_dim}", f"e{self.value_dim}", *numbers]
        )


def padded(channels: int) -> int:
    """The least power of two that holds `channels` and that a matrix unit takes."""
    return max(NARROWEST, 1 << (channels - 1).bit_length())


def block(channels: int) -> int:
    """Input channels that are read at once: as many as pad them by no more than a third."""
    return next((x for x in (64, 32) if -(-channels // x) * x * 3 <= channels * 4), NARROWEST)


def precision(size: int) -> str | None:
    """What products are told of factors of `size` bytes: float32 keeps all its bits."""
    return "ieee" if size == 4 else None
