"""mixerlang search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .analyze import Backend, Batch, WhoseCache
from .options import Dtype, Json, Root, Set, Spec, asked, settings

if TYPE_CHECKING:
    from ..analysis.compare import Entry
    from ..analysis.search import Goal


def search(
    spec: Spec,
    set: Set = None,
    within: Annotated[
        list[str] | None,
        typer.Option("--within", metavar="KEY@LENGTH<=NUMBER", show_default=False,
                     help="A bound, as cache_bytes@64k<=100MiB. Repeatable."),
    ] = None,
    best: Annotated[
        list[str] | None,
        typer.Option("--best", metavar="KEY@LENGTH", show_default=False,
                     help="What is to be small, or with a minus large, as -parameters. Repeatable; "
                     "by default -parameters and flops.step.useful."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", show_default=False,
                     help="Write each setting that is found as a spec."),
    ] = None,
    batch: Batch = 1,
    dtype: Dtype = None,
    backend: WhoseCache = Backend.EAGER,
    gpu: Annotated[str, typer.Option("--gpu", metavar="NAME", help="For seconds.*.")] = "h100",
    json: Json = False,
    root: Root = None,
) -> None:
    """Find the settings of a model within bounds that no other beats: --set NAME=128,256,512."""
    from ..analysis import analyze
    from ..analysis.compare import Entry
    from ..analysis.device import device
    from ..analysis.search import Bound, Goal, pareto
    from ..analysis.sweep import settings as combinations
    from .output import print_data
    from .specs import graph_of

    asked(lambda: device(gpu), "--gpu")
    bounds = asked(lambda: [Bound.parse(text) for text in within or ()], "--within")
    goals = asked(lambda: [Goal.parse(text) for text in best or GOALS], "--best")
    chosen = asked(lambda: list(combinations(settings(set))), "--set")
    found: dict[str, dict[str, str]] = {}
    entries = []
    for own in chosen:
        pairs = [f"{name}={value}" for name, value in own.items()]
        graph = graph_of(spec, pairs, root)
        title = ", ".join(pairs) or graph.name
        found[title] = own
        entries.append(Entry(title, analyze(graph, batch, None, dtype, backend), gpu))
    front = pareto(entries, bounds, goals)
    files = _written(spec, root, output, {e.title: found[e.title] for e, _ in front})
    if json:
        print_data([
            {"settings": found[entry.title], "file": files.get(entry.title),
             "values": {goal.title: abs(v) for goal, v in zip(goals, values, strict=True)}}
            for entry, values in front
        ])  # fmt: skip
    else:
        print(_table(front, goals, len(entries)))
        print("\n".join(files.values()))


GOALS = ("-parameters", "flops.step.useful")


def _table(front: list[tuple[Entry, tuple[float, ...]]], goals: list[Goal], tried: int) -> str:
    from ..analysis.compare import spell
    from .columns import columns

    rows = [("", *(goal.title for goal in goals))]
    for entry, values in sorted(front, key=lambda each: each[1]):
        cells = (spell(goal.key, abs(v)) for goal, v in zip(goals, values, strict=True))
        rows.append((entry.title, *cells))
    head = f"{len(front):,} of {tried:,} settings are within the bounds and beaten by none"
    if not front:
        return f"{head}: widen a --within, or --set more values"
    return f"{head}\n\n{columns(rows, right=range(1, len(goals) + 1))}"


def _written(
    spec: str, root: Path | None, output: Path | None, found: dict[str, dict[str, str]]
) -> dict[str, str]:
    """Specs by the title of their settings, in files named after these."""
    if output is None:
        return {}
    from ..semantics import open_project, split_spec
    from ..semantics.settled import settled
    from .guard import CommandError
    from .output import write_whole

    path, name = split_spec(spec)
    project = open_project(path, root)
    model = project.choose(name)
    assert project.module is not None and model is not None
    if project.module.imports:
        raise CommandError("a spec with imports would not find them elsewhere",
                           help="leave out -o, and --set the params of the spec as it is")
    output.mkdir(parents=True, exist_ok=True)
    files = {}
    for place, (title, own) in enumerate(found.items(), start=1):
        target = output / f"{model.name.id}_{place}.mix"
        write_whole(target, f"# {title}\n{settled(project, model, own)}")
        files[title] = str(target)
    return files
