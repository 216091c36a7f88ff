"""The causal depthwise convolution, with the inputs before its own carried from call to call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """y_t = sum over i of weight[:, i] * x_(t - kernel + 1 + i), with `tail` before x_0.

    x (N, T, C), of which sequence n uses the first counts[n]; weight (C, kernel); bias (C,); tail
    (N, kernel - 1, C). Returns y (N, T, C) and the tail after each sequence's last token.
    """
    seen = torch.cat([tail.to(x.dtype), x], dim=1)
    y = F.conv1d(seen.mT, weight[:, None], bias, groups=len(weight)).mT
    last = counts[:, None] + torch.arange(tail.shape[1], device=x.device)
    rows = torch.arange(len(seen), device=x.device)[:, None]
    return y, seen[rows, last].to(tail.dtype)
