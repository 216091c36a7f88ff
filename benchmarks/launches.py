"""What a layer launches, and how far each kernel is from its floor: tables for kernel-notes.md.

Launches are counted by torch's profiler, per layer: what two layers more add to a model. A floor is
the larger of the products' FLOPs at 785 TFLOP/s and the bytes that must move at 3.02 TB/s (measured
on an H100), each input read once and each output written once.

    python benchmarks/launches.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import attention_lte as lte
import decode
import harness
import model as models
import torch
from tables import header, line
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mixerlang.kernels.attention import op as attention_op
from mixerlang.kernels.attention.cost import visible_pairs
from mixerlang.kernels.attention.variant import Rule
from mixerlang.kernels.eviction import op as eviction_op
from mixerlang.kernels.rotary import op as rotary_op
from mixerlang.nn.backend import forced

FLOPS, BYTES = 785e12, 3.02e12
HOST_CALLS = ("Launch", "Memcpy", "Memset")
WINDOW = 512


# --------------------------------------------------------------------------------------- launches


class Counts(NamedTuple):
    """Kernels, copies and fills on the device; calls of the host that start them."""

    device: int
    host: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.device - other.device, self.host - other.host)

    def __str__(self) -> str:
        return f"{self.device / 2:g} ({self.host / 2:g})"


def count(call: Callable[[], Any], times: int = 1) -> Counts:
    """Of one call, the mean of `times`."""
    for _ in range(3):
        call()
    harness.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(times):
            call()
        harness.synchronize()
    device = host = 0
    for event in found.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            device += 1
        elif event.name.startswith("cu") and any(part in event.name for part in HOST_CALLS):
            host += 1
    return Counts(round(device / times), round(host / times))


def training(model: nn.Module, tokens: Tensor) -> Counts:
    """Forward and backward of a training step."""
    model.train()
    loss = models.our_loss(model)

    def step() -> None:
        model.zero_grad()
        loss(tokens).backward()

    return count(step)


def one_step(model: nn.Module, tokens: Tensor) -> Counts:
    """Forward of one token with a cache."""
    model.eval()
    with torch.no_grad():
        cache = model.new_cache(len(tokens), max_length=tokens.shape[1] + 64)
        model(tokens, cache=cache, last_only=True)
        return count(lambda: model(tokens[:, :1], cache=cache, last_only=True))


def generated(model: nn.Module, tokens: Tensor) -> Counts:
    """A token of `generate`."""
    stream = model.stream(tokens, 64)
    return count(lambda: next(stream), times=16)


MEASURES: dict[str, Callable[[nn.Module, Tensor], Counts]] = {
    "training, forward + backward": training,
    "decoding, a forward": one_step,
    "decoding, `generate`": generated,
}


loaded = cache(models.ours)


def per_layer(kind: str, measure: Callable[[nn.Module, Tensor], Counts], tokens: Tensor) -> Counts:
    """What two layers more add, twice a layer's."""
    short, long = (measure(loaded(kind, layers), tokens) for layers in (2, 4))
    return long - short


def launches(tokens: int) -> Iterator[str]:
    yield from header("launches per layer (host calls)", "layers", "eager", "kernels")
    sequence = models.random_tokens(1, tokens)
    for what, measure in MEASURES.items():
        for kind in models.SPECS:
            found = []
            for backend in ("eager", "kernels"):
                with forced(backend):
                    call = partial(per_layer, kind, measure, sequence)
                    found.append(harness.attempt(f"{what} {kind} {backend}", call))
            yield line(what, kind, *found)


# ----------------------------------------------------------------------------------------- floors


class Work(NamedTuple):
    """A call, the FLOPs of its products and the bytes that it must move."""

    name: str
    call: Callable[[], Any]
    flops: float
    bytes: float

    @property
    def floor_ms(self) -> float:
        return 1e3 * max(self.flops / FLOPS, self.bytes / BYTES)


def nbytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def pair(name: str, calls: lte.Pair, flops: float, forward: int, backward: int) -> Iterator[Work]:
    """Forward, and both; products of the backward pass are 2.5 times those of attention's forward,
    twice those of others, and `flops` counts both passes in its second part."""
    yield Work(f"{name}, forward", calls[0], flops, forward)
    factor = 3.0 if name.startswith("scorer") else 3.5
    yield Work(f"{name}, forward + backward", calls[1], factor * flops, forward + backward)


def works(cell: lte.Cell) -> Iterator[Work]:
    """The kernels of attention layers with 16 heads of 64."""
    inputs = lte.Inputs(cell)
    q, k, v, do = inputs.q, inputs.k, inputs.v, inputs.do
    once, back = nbytes(q, k, v, q), nbytes(q, k, v, q, do, q, k, v)
    channels = 4 * lte.DIM  # FLOPs of a pair of query and key, in the forward pass

    def rotate(leaves: list[Tensor], dropout: float) -> Tensor:
        return rotary_op.rotate(leaves[0], positions, theta=1e4)

    def window(leaves: list[Tensor], dropout: float) -> Tensor:
        return attention_op.attention(*leaves, window=WINDOW)

    positions = torch.arange(cell.tokens, device=q.device)[None]
    yield from pair("rotary", lte.both(rotate, [q], do), 0, nbytes(q, q), nbytes(q, q))
    flops = channels * cell.heads * visible_pairs(cell.tokens, Rule(WINDOW))
    yield from pair(f"window {WINDOW}", lte.both(window, [q, k, v], do), flops, once, back)
    convolutions = sum(w[: len(w) // cell.kv_heads].numel() for w in inputs.weights)
    flops = 2 * convolutions * cell.kv_heads * cell.tokens
    leaves = [k, v, *inputs.weights, *inputs.biases]
    calls = lte.both(partial(lte.score, inputs), leaves, inputs.uniform)
    yield from pair("scorer", calls, flops, nbytes(k, v, inputs.uniform), 2 * nbytes(k, v))
    for workload in lte.WORKLOADS:
        yield from _evicting(cell, inputs, workload, channels, once, back)


def _evicting(
    cell: lte.Cell, inputs: lte.Inputs, workload: str, channels: int, once: int, back: int
) -> Iterator[Work]:
    """Intervals, and attention over them."""
    z = inputs.scores(workload)
    budget = None if workload == "sparse" else lte.BUDGET

    def intervals() -> Any:
        return eviction_op.intervals(z, window=lte.WINDOW, budget=budget, sinks=lte.SINKS)

    spans = intervals()

    def attend(leaves: list[Tensor], dropout: float) -> Tensor:
        score = leaves[3] if dropout else None
        return attention_op.attention(
            *leaves[:3], window=lte.WINDOW, intervals=spans, score=score
        )

    index = torch.arange(cell.tokens, device=z.device)
    lived = (spans.death.clamp(max=cell.tokens) - index).sum().item()
    flops = channels * lived * cell.heads / cell.kv_heads
    written = nbytes(*(x for x in spans if x is not None))
    yield Work(f"intervals, {workload}", intervals, 0, nbytes(z) + written)
    calls = lte.both(attend, [inputs.q, inputs.k, inputs.v, z], inputs.do)
    yield from pair(f"attention, {workload}", calls, flops, once + nbytes(z), back + nbytes(z))


def floors(cell: lte.Cell) -> Iterator[str]:
    yield from header("kernel", "ms", "floor", "bound by", "times the floor")
    for work in works(cell):
        graph = harness.attempt(work.name, partial(harness.graphed, work.call))
        if graph is not None:
            ms = harness.interleaved({"": graph}, 9)[""]
            bound = "FLOPs" if work.flops / FLOPS > work.bytes / BYTES else "bytes"
            gap = f"{ms / work.floor_ms:.1f}"
            yield line(work.name, f"{ms:.4f}", f"{work.floor_ms:.4f}", bound, gap)
    for batch in (1, 8, 32, 64):
        layout = decode.SMALL if harness.device() == "cpu" else decode.LAYOUT
        ours = decode.Ours(decode.Cell(batch, 8192, layout))
        ms = decode.step_ms(ours, len(ours.states), decode.STEPS)
        floor = 1e3 * ours.bytes / BYTES
        yield line(f"decode step, batch {batch}", f"{ms:.4f}", f"{floor:.4f}", "bytes",
                   f"{ms / floor:.1f}")
        del ours
        harness.free()


def breakdown(cell: lte.Cell) -> Iterator[str]:
    """Each kernel's share of a training pass of LTE, by name."""
    yield from header("kernel of LTE, forward + backward, random", "launches", "ms")
    call = lte.ours(lte.Inputs(cell), "random")[1]
    call()
    harness.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        call()
        harness.synchronize()
    rows = [row for row in found.key_averages() if row.self_device_time_total > 0]
    for row in sorted(rows, key=lambda row: -row.self_device_time_total)[:25]:
        if row.device_type == torch.autograd.DeviceType.CUDA:
            yield line(row.key[:60], row.count, f"{row.self_device_time_total / 1e3:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=["launches", "floors", "breakdown"])
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on any machine")
    options = parser.parse_args()
    cell = lte.Cell(1024 if options.dry else 32768, *((2, 1) if options.dry else (16, 16)))
    parts = {
        "launches": lambda: launches(32 if options.dry else 2048),
        "floors": lambda: floors(cell),
        "breakdown": lambda: breakdown(cell),
    }
    for name in options.parts:
        print("\n".join(["", *parts[name]()]), flush=True)


if __name__ == "__main__":
    main()
