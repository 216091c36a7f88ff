"""Run the rendered attention kernels in Triton's interpreter, and print how far off they are.

A process of its own, as TRITON_INTERPRET=1 must stand before Triton is imported:
test_kernels_attention_interpret.py starts it. Prints a JSON object, case -> relative errors of o,
lse, dq, dk and dv against float64; NaN where an element was never written.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from triton.runtime import interpreter

from mixerlang.kernels.attention import dense, launch
from mixerlang.kernels.attention.variant import Tile, Variant

SMALL = (Tile(16, 16, 1, 1), Tile(16, 16, 1, 1), Tile(16, 16, 1, 1))
WIDE_OWN = (Tile(32, 16, 1, 1), Tile(32, 16, 1, 1), Tile(32, 16, 1, 1))
WIDE_STEP = (Tile(16, 32, 1, 1), Tile(16, 32, 1, 1), Tile(16, 32, 1, 1))

CASES: dict[str, tuple[Any, ...]] = {
    # batch, tokens, heads, KV heads, head dim, value dim, window, sinks, cu_seqlens, tiles
    "plain": (2, 37, 2, 1, 16, 16, 8, 0, None, SMALL),
    "one token": (1, 1, 1, 1, 16, 16, 8, 0, None, SMALL),
    "window of one": (1, 40, 2, 1, 16, 16, 1, 0, None, WIDE_OWN),
    "window of a block": (1, 70, 1, 1, 16, 16, 16, 0, None, SMALL),
    "window beyond the length": (1, 40, 3, 3, 16, 16, 100, 2, None, WIDE_STEP),
    "core and edges": (1, 90, 1, 1, 16, 16, 50, 0, None, WIDE_STEP),
    "sinks, wider values": (1, 70, 2, 2, 16, 32, 20, 3, None, WIDE_OWN),
    "many sinks": (1, 70, 2, 1, 16, 16, 5, 20, None, SMALL),
    "full, odd heads": (1, 66, 3, 1, 16, 16, None, 0, None, WIDE_STEP),
    "cut and padded head": (1, 40, 2, 1, 52, 20, 9, 0, None, SMALL),
    "packed": (1, 70, 4, 2, 16, 16, 20, 0, [0, 1, 20, 21, 70], WIDE_STEP),
    "packed with sinks": (1, 70, 2, 1, 16, 16, 5, 3, [0, 1, 20, 21, 50, 70], WIDE_OWN),
    "packed, full": (1, 66, 2, 1, 16, 16, None, 0, [0, 33, 33, 66], WIDE_OWN),
}


def run(case: tuple[Any, ...]) -> list[float]:
    batch, tokens, heads, kv_heads, dim, value_dim, window, sinks, cu, tiles = case
    torch.manual_seed(0)
    q = torch.randn(batch, tokens, heads, dim)
    k = torch.randn(batch, tokens, kv_heads, dim)
    v = torch.randn(batch, tokens, kv_heads, value_dim)
    do, dlse = torch.randn(batch, tokens, heads, value_dim), torch.randn(batch, heads, tokens)
    cu_seqlens = None if cu is None else torch.tensor(cu)
    packing = None if cu_seqlens is None else launch.bounds(cu_seqlens, tokens)
    variant = Variant(
        *(heads, kv_heads, dim, value_dim, "float32", 0.3, window, sinks),
        packed=cu is not None,
        lse_grad=True,
    )
    o, lse = launch.forward(q, k, v, variant, packing, tiles[0])
    dq, delta = launch.backward_q(do, q, k, v, o, lse, dlse, variant, packing, tiles[1])
    dk, dv = launch.backward_kv(do, q, k, v, lse, delta, variant, packing, tiles[2])
    wide = [x.double() for x in (q, k, v)]
    rest = (cu_seqlens, window, sinks, 0.3)
    expected = [*dense.forward(*wide, *rest)]
    expected += dense.backward(do.double(), dlse.double(), *wide, *rest)
    found = (o, lse, dq, dk, dv)
    return [relative(a, b) for a, b in zip(found, expected, strict=True)]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = max(expected.norm().item(), 1e-2 * expected.numel() ** 0.5)
    return (found.double() - expected).norm().item() / scale


def accept_new_numpy() -> None:
    """Loop bounds are arrays of one element there, which numpy >= 2.4 no longer turns into int."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if __name__ == "__main__":
    accept_new_numpy()
    torch.use_deterministic_algorithms(True)  # with it, new tensors hold NaN
    print(json.dumps({name: run(case) for name, case in CASES.items()}))
