"""Linear maps, through a bottleneck where a rank is given."""

from __future__ import annotations

from torch import nn


def projection(dim: int, out: int, rank: int | None = None, *, bias: bool = False) -> nn.Module:
    """dim -> out, or dim -> rank -> out; a bias only at the end."""
    if rank is None:
        return nn.Linear(dim, out, bias=bias)
    return nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, out, bias=bias))
