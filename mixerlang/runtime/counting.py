"""FLOPs of a model as torch counts them while it runs, with what it miscounts put right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]
aten = torch.ops.aten


def solved(a: Shape, b: Shape, *_: object, **__: object) -> int:
    """torch counts a triangular system as nothing; here as the product that it undoes."""
    return 2 * torch.Size(a).numel() * b[-1]


def convolved_back(grad: Shape, x: Shape, weight: Shape, *rest: Any, **__: object) -> int:
    """torch counts (1 + groups) products as large as that of the forward pass; there is one for
    each gradient that is asked for."""
    wanted = next(mask for mask in rest if isinstance(mask, list) and isinstance(mask[0], bool))
    return 2 * grad[0] * grad[2] * torch.Size(weight).numel() * sum(wanted[:2])


CORRECTED = {aten.linalg_solve_triangular: solved, aten.convolution_backward: convolved_back}


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Of what runs inside, attention by its mathematics: its kernels would count as nothing."""
    counter = FlopCounterMode(display=False, custom_mapping=CORRECTED)
    with sdpa_kernel(SDPBackend.MATH), counter:
        yield counter
