"""Kernels of a spec, built for GPUs that are not here: what is told of those that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from mixerlang.codegen import build
from mixerlang.codegen.apart import told_apart
from mixerlang.codegen.build import Built, Planned, plan, report
from mixerlang.diagnostics import Diagnostics
from mixerlang.kernels import loader
from mixerlang.kernels.ahead import LIMITS, Job, Resources
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).parents[2]
HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))


def load(source: str) -> Callable[[], ModuleType]:
    return partial(loader.load, "probe", HEAD + source)


COPY = Job(
    "copy",
    load(
        "def copy(x_ptr, y_ptr, n, SIZE: tl.constexpr):\n"
        "    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)\n"
        "    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)\n"
    ),
    "copy",
    {"x_ptr": "*fp32", "y_ptr": "*fp32", "n": "i32"},
    {"SIZE": 256},
)


def product(side: int) -> Job:
    """One product of two squares, through shared memory."""
    return Job(
        f"product{side}",
        load(
            "def product(x_ptr, y_ptr, z_ptr, SIDE: tl.constexpr):\n"
            "    at = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]\n"
            "    z = tl.dot(tl.load(x_ptr + at), tl.load(y_ptr + at))\n"
            "    tl.store(z_ptr + at, z)\n"
        ),
        "product",
        {"x_ptr": "*bf16", "y_ptr": "*bf16", "z_ptr": "*fp32"},
        {"SIDE": side},
    )


def planned(job: Job, *smaller: Job) -> Planned:
    return Planned(job, "sm_80", "bfloat16", None,
                   {64 >> place: partial(lambda job: job, each) for place, each in
                    enumerate(smaller)})  # fmt: skip


def told(*built: Built) -> list[tuple[str, str, str | None]]:
    diagnostics = Diagnostics()
    report(built, diagnostics)
    return [(item.code, item.message, item.help) for item in diagnostics]


def test_builds_in_other_processes_and_keeps_the_order() -> None:
    plans = [planned(COPY), planned(product(64)), planned(COPY)]
    built = build.build(plans, workers=2)
    assert [each.planned.job.name for each in built] == ["copy", "product64", "copy"]
    assert all(each.fits and each.problem is None for each in built)
    resources = built[1].resources
    assert resources is not None and resources.shared >= 8192 and resources.registers > 16
    assert told(*built) == []


def test_too_much_shared_memory_names_the_nearest_that_fits() -> None:
    limit = LIMITS["sm_80"]
    built = Built(planned(COPY, product(64)), Resources(limit + 1, 32, 0, False))
    (found,) = told(built)
    assert found == (
        "MX602",
        f"`copy` in bfloat16 on sm_80 takes {limit + 1:,} bytes of shared memory, and a program "
        f"has {limit:,}",
        "head_dim=64 is the nearest that fits",
    )


def test_a_spill_is_a_warning() -> None:
    (found,) = told(Built(planned(COPY), Resources(0, 255, 96, False)))
    assert found[0] == "MX603" and "spills 96 bytes" in found[1]
    assert found[2] == "use a smaller head_dim, or another dtype"
    assert told(Built(planned(COPY), Resources(0, 96, 8, False))) == []


def test_what_cannot_be_built_is_told() -> None:
    broken = Job("broken", load("def broken(x_ptr):\n    tl.store(x_ptr, y)\n"), "broken",
                 {"x_ptr": "*fp32"})  # fmt: skip
    (built,) = build.build([planned(broken)])
    assert built.resources is None and not built.fits
    ((code, message, _),) = told(built)
    assert code == "MX602" and "cannot be built: CompilationError" in message


def test_a_smaller_head_is_tried_until_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    spilling, fitting = product(64), product(16)
    answers = {spilling.name: Resources(0, 255, 64, False), fitting.name: Resources(0, 9, 0, False)}
    monkeypatch.setattr(build, "_resources", lambda job, _: (answers[job.name], None))
    plan = planned(COPY, spilling, fitting)
    ((_, _, help),) = told(Built(plan, Resources(0, 255, 96, False)))
    assert help == "head_dim=32 is the nearest that fits"


def test_every_kernel_of_a_spec_is_planned_once() -> None:
    graph, _ = build_graph(ROOT / "specs/tiny/lalte.mix")
    assert graph is not None
    plans = plan(graph, "bfloat16", "sm_90")
    names = [each.job.name for each in plans]
    assert len(set(names)) == len(plans)
    jobs = {repr((p.job.load, p.job.function, p.job.types, p.job.constants)) for p in plans}
    assert len(jobs) == len(plans)
    for part in (
        "attention_forward",
        "attention_backward_gathered",
        "scorer_forward",
        "eviction",
        "rotary",
        "decode",
        "swiglu",
    ):
        assert any(name.startswith(part) for name in names), part
    asked = {None if each.span is None else each.span.begin[0] for each in plans}
    assert asked >= {11, 12, 19} and None not in asked  # the recurrence, attention, the ffn


def test_names_tell_kernels_apart_by_what_differs_alone() -> None:
    def job(name: str, types: dict[str, str], **constants: object) -> Job:
        return Job(name, COPY.load, "copy", types, constants)

    found = told_apart([
        job("copy", {"x_ptr": "*fp32"}, BLOCK=16, WINDOW=3),
        job("copy", {}, x_ptr=None, BLOCK=16, WINDOW=3),
        job("other", {}, BLOCK=1),
        job("copy", {"x_ptr": "*fp32"}, BLOCK=16, WINDOW=5),
        job("copy", {"x_ptr": "*bf16"}, BLOCK=16, WINDOW=5),
    ])  # fmt: skip
    assert [each.name for each in found] == [
        "copy, x fp32, window 3",
        "copy, no x, window 3",
        "other",
        "copy, x fp32, window 5",
        "copy, x bf16, window 5",
    ]
    assert all(each.constants.get("BLOCK") for each in found)
