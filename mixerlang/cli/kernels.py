"""mixerlang kernels."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .guard import need_triton
from .options import Dtype, Json, Root, Set, Spec, settings

if TYPE_CHECKING:
    from ..codegen.build import Built
    from ..codegen.serve import Served


class Gpu(StrEnum):
    SM_80 = "sm_80"
    SM_90 = "sm_90"


def kernels(
    spec: Spec,
    gpu: Annotated[
        list[Gpu] | None,
        typer.Option("--gpu", show_default=False,
                     help="Build them for this GPU, which need not be here. Repeatable."),
    ] = None,
    dtype: Dtype = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Say what runs each layer on a GPU; with --gpu, build the kernels and say what they take."""
    from ..codegen.build import build, plan
    from ..codegen.build import report as report_built
    from ..codegen.compile import compile_spec
    from ..codegen.serve import served
    from ..errors import SpecError
    from .output import print_data, report

    if gpu:
        need_triton("building kernels", ", or leave out --gpu")
    compiled, diagnostics = compile_spec(spec, settings(set), root)
    if compiled is None:
        raise SpecError(diagnostics)
    graph = compiled.graph
    plans = [each for name in dict.fromkeys(gpu or ())
             for each in plan(graph, dtype or graph.fields.dtype, name)]
    built = build(plans)
    report_built(built, diagnostics)
    parts = served(graph)
    if json:
        print_data({"model": graph.name, "kernels": [part.as_json() for part in parts],
                    "built": [as_json(each) for each in built]})
    else:
        print("\n\n".join([what_runs(parts), *([what_it_takes(built)] if built else [])]))
    report(diagnostics)
    if diagnostics.errors:
        raise typer.Exit(1)


def what_runs(parts: list[Served]) -> str:
    """A row for each part of alike layers."""
    from ..ir.groups import spell_indices
    from .columns import columns

    rows = [(part.label, spell_indices(list(part.layers)), part.what, part.runs) for part in parts]
    return columns([("", "layers", "what", "on a GPU"), *rows])


def what_it_takes(built: list[Built]) -> str:
    """A row for each kernel that was built."""
    from .columns import columns

    title = f"kernel ({built[0].planned.dtype})"
    heading = (title, "GPU", "tile", "warps", "shared", "registers", "spilled")
    return columns([heading, *map(_row, built)], right=range(3, 7))


def _row(built: Built) -> tuple[str, ...]:
    plan, found = built.planned, built.resources
    warps = str(plan.job.options.get("num_warps", 4))
    head = (plan.job.name, plan.architecture, plan.job.tile, warps)
    if found is None:
        return (*head, "-", "-", "-")
    return (*head, f"{found.shared:,}", str(found.registers), str(found.spilled))


def as_json(built: Built) -> dict[str, Any]:
    """An entry of --json."""
    plan, found = built.planned, built.resources
    return {
        "kernel": plan.job.name,
        "gpu": plan.architecture,
        "dtype": plan.dtype,
        "tile": plan.job.tile,
        "options": dict(plan.job.options),
        "limit": built.limit,
        **({"problem": built.problem} if found is None else found._asdict()),
    }
