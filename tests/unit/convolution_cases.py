"""Cases of the short convolution, and what it gives, sequence by sequence in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mixerlang.kernels.convolution.cut import Part
from mixerlang.kernels.convolution.reference import convolution


class Case(NamedTuple):
    """lengths: of the packed sequences, or None for `batch` of `tokens` each."""

    parts: tuple[Part, ...]
    kernel: int = 4
    batch: int = 1
    tokens: int = 20
    lengths: tuple[int, ...] | None = None
    bias: bool = False
    initial: bool = False
    strided: bool = False


QKV = (Part(32, True, 16), Part(32, True, 16), Part(48, True))
CASES = {
    "one token": Case(QKV, tokens=1, batch=3, initial=True),
    "fewer tokens than taps": Case(QKV, kernel=8, tokens=3, batch=2, initial=True),
    "rows": Case(QKV, tokens=37, batch=2),
    "several runs": Case((Part(24, True),), tokens=70, batch=2, bias=True, initial=True),
    "packed": Case(QKV, tokens=41, lengths=(1, 2, 20, 3, 15)),
    "packed, cached": Case(QKV, tokens=61, lengths=(1, 2, 40, 3, 15), initial=True, bias=True),
    "heads of 100": Case((Part(300, True, 100), Part(300)), tokens=19, batch=2, strided=True),
    "odd channels": Case((Part(7), Part(5, True)), kernel=3, tokens=13, batch=2, bias=True),
    "one tap": Case((Part(20, False, 5),), kernel=1, tokens=9),
    "wide heads": Case((Part(1100),), kernel=2, tokens=18, strided=True),
}


def tensors(case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Arguments of `convolve`."""
    torch.manual_seed(0)
    channels = sum(part.channels for part in case.parts)
    batch = case.batch if case.lengths is None else 1
    sequences = case.batch if case.lengths is None else len(case.lengths)
    x = torch.randn(batch, case.tokens, channels + 8 * case.strided, device=device).to(dtype)
    found: dict[str, Any] = {"x": x[..., :channels], "parts": case.parts}
    found["weight"] = torch.randn(channels, case.kernel, device=device)
    if case.bias:
        found["bias"] = torch.randn(channels, device=device)
    if case.initial:
        before = torch.randn(sequences, case.kernel - 1, channels, device=device)
        found["initial"] = before.to(dtype)
    if case.lengths is not None:
        found["cu_seqlens"] = torch.tensor([0, *case.lengths], device=device).cumsum(0)
    return found


def expected(
    parts: tuple[Part, ...],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> list[Tensor]:
    """y of each part, and the tail, in float64."""
    x, weight = x.double(), weight.double()
    bias = None if bias is None else bias.double()
    edges = [0, x.shape[1]] if cu_seqlens is None else cu_seqlens.tolist()
    sequences = list(x) if cu_seqlens is None else [x[0, a:b] for a, b in pairwise(edges)]
    if initial is None:
        initial = x.new_zeros(len(sequences), weight.shape[1] - 1, x.shape[2])
    results = [
        convolution(own[None], weight, bias, before.double()[None], torch.tensor([len(own)]))
        for own, before in zip(sequences, initial, strict=True)
    ]
    z = torch.cat([y for y, _ in results], dim=0 if cu_seqlens is None else 1)
    pieces = z.split([part.channels for part in parts], dim=-1)
    mapped = [follow(piece, part) for piece, part in zip(pieces, parts, strict=True)]
    return [*mapped, torch.cat([tail for _, tail in results])]


def follow(z: Tensor, part: Part) -> Tensor:
    y = F.silu(z) if part.silu else z
    if not part.head_dim:
        return y
    heads = y.unflatten(-1, (-1, part.head_dim))
    return (heads / (heads.square().sum(-1, keepdim=True) + 1e-6).sqrt()).flatten(-2)


def errors(
    case: Case, convolve: Any, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[float]:
    """Relative errors of results, tail and gradients; NaN where an element was never written."""
    given = tensors(case, device, dtype)
    names = [name for name in ("x", "weight", "bias") if name in given]
    ours = given | {name: given[name].detach().requires_grad_() for name in names}
    exact = given | {name: given[name].double().requires_grad_() for name in names}
    found, tail = convolve(**ours, keep_tail=True)
    wanted = expected(**{k: v.cpu() if isinstance(v, Tensor) else v for k, v in exact.items()})
    up = [torch.randn(y.shape, dtype=y.dtype) for y in wanted[:-1]]
    up = [u.to(dtype).double() for u in up]
    gradients = torch.autograd.grad(
        found, [ours[n] for n in names], [u.to(device, dtype) for u in up]
    )
    known = torch.autograd.grad(wanted[:-1], [exact[n] for n in names], up)
    pairs = zip((*found, tail, *gradients), (*wanted, *known), strict=True)
    return [relative(a, b) for a, b in pairs if b.numel()]


def relative(found: Tensor, wanted: Tensor) -> float:
    wanted = wanted.detach().cpu()
    return ((found.detach().cpu().double() - wanted).norm() / wanted.norm()).item()
