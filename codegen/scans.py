"""The kernels of a model's own recurrences: whether there are any, rendered, and built ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..primitives.scan import Scan
from .kernels import Source

if TYPE_CHECKING:
    from ..kernels.ahead import Job
    from ..kernels.scan.rule import Equations
    from ..kernels.scan.source import Kernel


def unserved(scan: Scan) -> str | None:
    """Why plain PyTorch runs a bound layer on a GPU, if so."""
    from ..kernels.scan.launch import problem

    return problem(_equations(scan), *_sizes(scan))


def sources(scan: Scan) -> Iterator[Source]:
    """What a bound layer launches."""
    if unserved(scan) is None:
        made = _kernel(scan)
        yield Source("scan", made.stem, made.text)


def jobs(scan: Scan) -> list[Job]:
    """Its kernels, to be built for a GPU that need not be here."""
    from ..kernels.scan import ahead

    return list(ahead.jobs(_kernel(scan))) if unserved(scan) is None else []


def _kernel(scan: Scan) -> Kernel:
    from ..kernels.scan.launch import kernel

    return kernel(_equations(scan), *_sizes(scan))


def _equations(scan: Scan) -> Equations:
    from ..kernels.scan.rule import Equations

    rule = scan.rule
    return Equations(
        tuple((each.name, each.axes) for each in rule.states),
        tuple((each.name, each.axes) for each in rule.operands),
        tuple(str(line) for line in rule.lines),
    )


def _sizes(scan: Scan) -> tuple[int, int, int]:
    """Heads, and channels of a key and of a value."""
    _, value_heads, key_dim, value_dim = scan.shape()
    return value_heads, scan.features.width(key_dim), value_dim
