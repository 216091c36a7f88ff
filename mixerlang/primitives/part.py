"""What an op does, part by part: matrix products, and passes over memory.

A multiply-add is two FLOPs. Norms, activations and softmax count none, as with FlopCounterMode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..algebra import Count


@dataclass(frozen=True, slots=True)
class Workload:
    """What a cost is asked for: `batch` sequences of `length` tokens, in `bytes_per_element`.

    For a decoding step the `length` tokens are those in the cache, and each sequence brings one
    more. kernels: the cache is the one of the kernels, on a GPU, where they serve a layer.
    training: under train(), where policies without weights evict nothing, and a learned one keeps
    every candidate unless it is capped.
    """

    batch: Count
    length: Count
    bytes_per_element: int = 2
    kernels: bool = False
    training: bool = False

    @property
    def tokens(self) -> Count:
        return self.batch * self.length

    @property
    def one(self) -> Workload:
        """A token per sequence."""
        return Workload(self.batch, 1, self.bytes_per_element, self.kernels, self.training)


@dataclass(frozen=True, slots=True)
class Flops:
    """useful: what the definition asks for, masked pairs and padding left out. dense: what plain
    PyTorch runs, as FlopCounterMode counts it."""

    useful: Count = 0
    dense: Count = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.useful + other.useful, self.dense + other.dense)

    def __mul__(self, factor: Count) -> Flops:
        return Flops(self.useful * factor, self.dense * factor)


@dataclass(frozen=True, slots=True)
class Part:
    """read, written: bytes of a pass forward that takes each of its tensors once. saved: bytes kept
    for backward, its op's input left out. bound: whether useful FLOPs depend on the data, and stand
    here for the most that they can be.
    """

    name: str
    forward: Flops = Flops()
    backward: Flops = Flops()
    read: Count = 0
    written: Count = 0
    saved: Count = 0
    bound: bool = False


def total(flops: Iterable[Flops]) -> Flops:
    return sum(flops, Flops())


def linear(
    name: str, work: Workload, inputs: int, outputs: int, bias: bool = False, saved: Count = 0
) -> Part:
    """A linear map of every token. Its backward is two products of the same size."""
    element, flops = work.bytes_per_element, 2 * work.tokens * inputs * outputs
    weights = element * (inputs + bias) * outputs
    forward = Flops(flops, flops)
    read, written = element * work.tokens * inputs + weights, element * work.tokens * outputs
    return Part(name, forward, forward * 2, read, written, saved)


def elementwise(
    name: str, work: Workload, inputs: int, outputs: int, weights: int = 0, saved: Count = 0
) -> Part:
    """A pass over `inputs` channels of every token that gives `outputs`."""
    element = work.bytes_per_element
    return Part(
        name,
        read=element * (work.tokens * inputs + weights),
        written=element * work.tokens * outputs,
        saved=saved,
    )


def depthwise(name: str, work: Workload, channels: int, taps: int, saved: int = 0) -> Part:
    """A causal convolution over time, a filter per channel; saved: channels kept beside its input.

    Its backward is two products of the same size, where torch says 1 + channels.
    """
    element, flops = work.bytes_per_element, 2 * work.tokens * channels * taps
    weights, kept = element * channels * taps, element * work.tokens * saved
    forward, moved = Flops(flops, flops), element * work.tokens * channels
    return Part(name, forward, forward * 2, moved + weights, moved, kept)
