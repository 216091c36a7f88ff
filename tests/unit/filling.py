"""What tests of filling a decode cache share: calls of every kind, filled by kernels and without.

Sequences come as rows or packed, as the first tokens of all or as an axis that begins with what a
cache held: empty columns, kept tokens at any positions, then the newest ones side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixerlang.kernels.decode import fill_launch, state
from mixerlang.kernels.decode.layout import Layout

LEARNED = Layout(9, budget=6, sinks=2, kind="learned", lookahead=2, span=2)
LAYOUTS = {
    "full": Layout(),
    "window": Layout(7, span=2),
    "window, sinks": Layout(5, sinks=3, span=2),
    "strided": Layout(3, strided=4, sinks=2),
    "norm": Layout(6, budget=5, kind="norm"),
    "random": Layout(4, budget=40, kind="random", span=3),
    "learned": LEARNED,
}
SHAPES = {"rows": (3, 30), "short rows": (2, 4), "one token": (1, 1), "packed": (4, 50)}


class Sizes(NamedTuple):
    kv_heads: int = 2
    dim: int = 16
    value_dim: int = 12
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


SMALL = Sizes()


def cases() -> Iterator[tuple[str, Layout, str, bool]]:
    """Name, layout, which shape, whether the axis has older tokens."""
    for name, layout in LAYOUTS.items():
        for shape in SHAPES:
            for older in (False, True):
                if shape == "packed" and older:
                    continue  # older tokens come as rows
                yield f"{name}, {shape}{', older' * older}", layout, shape, older


def differences(layout: Layout, shape: str, older: bool, sizes: Sizes = SMALL) -> list[str]:
    """The tensors of the state that kernels leave otherwise than plain PyTorch does."""
    arguments, batch = call(layout, shape, older, sizes)
    most = 60 if layout.everything else None
    shapes = batch, sizes.kv_heads, sizes.dim, sizes.value_dim, most
    mine, theirs = (state.new_state(layout, *shapes, sizes.dtype, sizes.device) for _ in range(2))
    fill_launch.fill(layout, mine, **arguments)
    state.fill_plainly(layout, theirs, **arguments)
    return [name for name in mine if not torch.equal(mine[name], theirs[name])]


def call(layout: Layout, shape: str, older: bool, sizes: Sizes) -> tuple[dict[str, Any], int]:
    """The arguments of a fill, and the number of sequences."""
    torch.manual_seed(1)
    batch, tokens = SHAPES[shape]
    rows = 1 if shape == "packed" else batch
    lead = rows, tokens, sizes.kv_heads
    made: dict[str, Any] = {
        # rows with gaps, as a projection of q, k and v at once leaves them
        "k": draw(*lead, 2 * sizes.dim, sizes=sizes)[..., : sizes.dim],
        "v": draw(*lead, sizes.value_dim, sizes=sizes),
        "raw_k": draw(*lead, sizes.dim, sizes=sizes),
        "z": torch.randn(lead, device=sizes.device).transpose(1, 2),
        "cu_seqlens": None,
        "positions": None,
        "next": torch.full((batch,), tokens, device=sizes.device),
    }
    last = tokens - 1
    if shape == "packed":
        edges = torch.tensor([0, 3, 4, 31, 50], device=sizes.device)
        made |= {"cu_seqlens": edges, "next": edges.diff()}
    if older:
        made |= dict(zip(("positions", "next"), axis(rows, tokens, sizes), strict=True))
    death = torch.randint(last // 2, 2 * last + 3, (rows, sizes.kv_heads, tokens))
    made["death"] = death.to(sizes.device, torch.int32)
    return made, batch


def axis(rows: int, tokens: int, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """positions (rows, G, tokens) and next (rows,): the newest half side by side, before them some
    of the older tokens in order, and in their midst columns that are empty."""
    newest = (tokens + 1) // 2
    found = torch.full((rows, sizes.kv_heads, tokens), -1)
    reached = torch.tensor([tokens + 7 * row for row in range(rows)])
    for row in range(rows):
        first = int(reached[row]) - newest
        found[row, :, tokens - newest :] = first + torch.arange(newest)
        for head in range(sizes.kv_heads):
            held = torch.randperm(first)[: tokens - newest - 1].sort().values
            found[row, head, : len(held)] = held
    return found.to(sizes.device), reached.to(sizes.device)


def draw(*shape: int, sizes: Sizes) -> Tensor:
    return torch.randn(shape, device=sizes.device).to(sizes.dtype)
