"""The kernels of a model, built for a GPU that need not be here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

from ..diagnostics import Diagnostics
from ..ir.graph import Graph, Node
from ..primitives.attention import Attention
from ..primitives.ffn import SwiGLU
from ..primitives.norm import Alibi, RMSNorm, Rope
from ..primitives.recurrence import Recurrence
from ..primitives.scan import Scan
from ..source import Span
from . import recurrences, rows, scans
from .apart import told_apart
from .kernels import budget, dropout, scorer, variants
from .serve import Softmax, softmaxes

if TYPE_CHECKING:
    from ..kernels.ahead import Job, Resources
    from ..kernels.attention.variant import Variant

SMALLER = (224, 192, 160, 128, 112, 96, 80, 64, 48, 32, 16)
"""Head dims that are tried in place of one that does not fit."""


PARKED = 32
"""Bytes per thread that the assembler may keep in memory though it has registers left, a number or
two of a loop: nobody can tell the time of it."""


@dataclass(frozen=True)
class Planned:
    """A kernel to build. span: what in the spec asks for it. smaller: head dims below its own, each
    with what makes the kernel for it."""

    job: Job
    architecture: str
    dtype: str
    span: Span | None
    smaller: dict[int, Callable[[], Job]]

    @property
    def title(self) -> str:
        return f"`{self.job.name}` in {self.dtype} on {self.architecture}"


@dataclass(frozen=True)
class Built:
    """What a kernel takes of the GPU, or the `problem` that kept it from being built."""

    planned: Planned
    resources: Resources | None
    problem: str | None = None

    @property
    def limit(self) -> int:
        """Bytes of shared memory that a program may take."""
        from ..kernels.ahead import LIMITS

        return LIMITS[self.planned.architecture]

    @property
    def fits(self) -> bool:
        return self.resources is not None and self.resources.shared <= self.limit

    @property
    def spills(self) -> bool:
        return self.resources is not None and self.resources.spilled > PARKED


def build(plans: list[Planned], workers: int | None = None) -> list[Built]:
    """Build in parallel processes; the order stays."""
    workers = min(workers or os.cpu_count() or 1, len(plans))
    if workers < 2:
        return [build_one(plan) for plan in plans]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = ([plan.job for plan in plans], [plan.architecture for plan in plans])
        answers = pool.map(_resources, *jobs)
        return [Built(plan, *answer) for plan, answer in zip(plans, answers, strict=True)]


def build_one(plan: Planned) -> Built:
    return Built(plan, *_resources(plan.job, plan.architecture))


def _resources(job: Job, architecture: str) -> tuple[Resources | None, str | None]:
    """What a kernel takes, or why the compiler could not make it."""
    from ..kernels import ahead

    try:
        return ahead.resources(ahead.build(job, architecture)), None
    except OSError:  # a cache that cannot be written, a full disk: nothing of the kernel's
        raise
    except Exception as error:  # whatever Triton and the assembler raise
        lines = str(error).strip().splitlines() or [""]
        return None, f"{type(error).__name__}: {' '.join(dict.fromkeys([lines[0], lines[-1]]))}"


# ---------------------------------------------------------------------------------- what to build


def plan(graph: Graph, dtype: str, architecture: str) -> list[Planned]:
    """Every kernel of a model, each once."""
    found: dict[str, Planned] = {}
    for node in graph:
        jobs = rows.jobs(node.op, graph.width(node), dtype, architecture)
        few = (Planned(job, architecture, dtype, node.span, {}) for job in jobs)
        for planned in (*_planned(node, dtype, architecture), *few):
            job = planned.job
            found.setdefault(repr((job.name, job.types, job.constants)), planned)
    plans = list(found.values())
    named = told_apart([each.job for each in plans])
    return [replace(each, job=job) for each, job in zip(plans, named, strict=True)]


def _planned(node: Node, dtype: str, architecture: str) -> Iterator[Planned]:
    """What one node launches."""
    from ..kernels.swiglu.ahead import jobs as swiglu

    op = node.op
    if isinstance(op, Attention):
        span = op.origin.of("head_dim") or node.span
        for softmax in softmaxes(op):
            for job, smaller in _jobs(softmax, dtype, architecture):
                yield Planned(job, architecture, dtype, span, smaller)
    elif isinstance(op, Recurrence):
        for job in recurrences.jobs(op, dtype, architecture):
            yield Planned(job, architecture, dtype, op.origin.of("key_dim") or node.span, {})
    elif isinstance(op, Scan):
        for job in scans.jobs(op):
            yield Planned(job, architecture, dtype, op.origin.span or node.span, {})
    elif isinstance(op, SwiGLU):
        for job in swiglu(dtype):
            yield Planned(job, architecture, dtype, node.span, {})


def _jobs(
    softmax: Softmax, dtype: str, architecture: str
) -> Iterator[tuple[Job, dict[int, Callable[[], Job]]]]:
    """What one softmax launches, with what makes the same for smaller heads."""
    from ..kernels.attention import ahead, render

    for variant in variants(softmax):
        for name in render.passes(variant):
            make = partial(ahead.job, name, dtype=dtype, architecture=architecture)
            dims = [dim for dim in SMALLER if dim < variant.head_dim]
            yield make(variant), {dim: partial(make, _narrower(variant, dim)) for dim in dims}
    for job in _beside(softmax, dtype, architecture):
        yield job, {}


def _narrower(variant: Variant, dim: int) -> Variant:
    return replace(variant, head_dim=dim, value_dim=min(dim, variant.value_dim))


def _beside(softmax: Softmax, dtype: str, architecture: str) -> Iterator[Job]:
    """Of the ops around attention itself."""
    from ..kernels.eviction import ahead as eviction
    from ..kernels.scorer import ahead as scoring

    network = scorer(softmax)
    if network is not None:
        yield from scoring.jobs(network, dropout(softmax), dtype, architecture)
    for training in (True, False):
        if softmax.route(training).op == "intervals":
            for packed in (False, True):
                yield from eviction.jobs(budget(softmax, training), packed)
    yield from _steps(softmax, dtype, architecture)
    yield from _rotations(softmax.attention, dtype, architecture)


def _steps(softmax: Softmax, dtype: str, architecture: str) -> Iterator[Job]:
    """Of decoding: a token at a time, and as many as one step takes; and after a prefill."""
    from ..kernels.attention.variant import DTYPES
    from ..kernels.decode import ahead, fill_ahead
    from ..kernels.decode.cut import Shape

    layout = softmax.layout()
    if layout is None:
        return
    attention = softmax.attention
    _, _, head_dim, value_dim = attention.shape()
    build = partial(
        ahead.jobs,
        layout,
        dtype=dtype,
        architecture=architecture,
        softcap=attention.softcap,
        sink_logits=attention.sink_logits,
        slopes=isinstance(attention.position, Alibi),
    )
    for tokens in dict.fromkeys((1, layout.span)):
        size = DTYPES[dtype]
        yield from build(Shape(tokens, softmax.heads, softmax.kv_heads, head_dim, value_dim, size))
    for packed in (False, True):
        yield from fill_ahead.jobs(layout, softmax.kv_heads, head_dim, value_dim, dtype, packed)


def _rotations(attention: Attention, dtype: str, architecture: str) -> Iterator[Job]:
    from ..kernels.attention.variant import MAX_HEAD_DIM
    from ..kernels.rotary import ahead

    heads, kv_heads, head_dim, _ = attention.shape()
    if isinstance(attention.position, Rope) and head_dim <= MAX_HEAD_DIM:
        half = int(head_dim * attention.position.fraction) // 2
        norm = isinstance(attention.qk_norm, RMSNorm)
        for each in dict.fromkeys((heads, kv_heads)):
            yield from ahead.jobs(each, head_dim, half, norm, dtype, architecture)


# --------------------------------------------------------------------------- what is wrong with it


def report(built: Iterable[Built], diagnostics: Diagnostics) -> None:
    """Tell, where the spec asks for it, of kernels that do not fit or spill."""
    for each in built:
        plan, found = each.planned, each.resources
        way_out = partial(_way_out, each)
        if found is None:
            message = f"{plan.title} cannot be built: {each.problem}"
            diagnostics.add("MX602", plan.span, message, help=way_out)
        elif not each.fits:
            message = f"{plan.title} takes {found.shared:,} bytes of shared memory"
            message += f", and a program has {each.limit:,}"
            diagnostics.add("MX602", plan.span, message, help=way_out)
        elif each.spills:
            message = f"{plan.title} spills {found.spilled} bytes per thread"
            diagnostics.add("MX603", plan.span, message, help=way_out)


def _way_out(built: Built) -> str:
    """The nearest smaller head_dim that is built without a complaint."""
    for dim, make in built.planned.smaller.items():
        other = build_one(replace(built.planned, job=make()))
        if other.fits and not other.spills:
            return f"head_dim={dim} is the nearest that fits"
    return "use a smaller head_dim, or another dtype"
