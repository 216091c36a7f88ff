"""mixerlang validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Dtype, Json, Root, Set, Spec, settings

if TYPE_CHECKING:
    from ..runtime.validate import Validation


def validate(
    spec: Spec,
    batch: Annotated[int, typer.Option(min=1, max=2**20, help="Sequences.")] = 1,
    length: Annotated[int, typer.Option(min=2, max=2**20, help="Tokens per sequence.")] = 128,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
    set: Set = None,
    root: Root = None,
) -> None:
    """Run a model and lay what `analyze` says beside what is counted and measured."""
    from .models import place
    from .output import print_data
    from .specs import graph_of

    graph = graph_of(spec, set, root)
    from ..runtime.load import load
    from ..runtime.validate import validate as run

    model = load(spec, params=settings(set), root=root, device=place(device), dtype=dtype, seed=0)
    found = run(model, graph, batch, length)
    if json:
        print_data(found.as_json())
    else:
        print(_table(found))
    if not found.agrees:
        raise typer.Exit(1)


def _table(found: Validation) -> str:
    from ..analysis.units import seconds
    from .columns import columns

    rows = [("", "said", "counted", "")]
    for each in found.checked:
        unit = f" {each.unit}" if each.unit else ""
        verdict = "equal" if each.agrees else f"off by {each.found - each.said:+,}"
        rows.append((each.what, f"{each.said:,}{unit}", f"{each.found:,}{unit}", verdict))
    analysis = found.analysis
    times = ", ".join(f"{name} {seconds(time)}" for name, time in found.seconds.items())
    return "\n".join([
        f"{analysis.model}: batch {analysis.batch:,}, length {analysis.length:,}, "
        f"{analysis.dtype} on {found.device}; FLOPs in plain PyTorch", "",
        columns(rows, right=(1, 2)), "", f"measured: {times}",
    ])  # fmt: skip
