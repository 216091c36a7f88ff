"""Every kernel of every spec of the gallery builds for both generations of GPUs, ahead of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixerlang.codegen.build import Planned, build, plan
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).parents[2]
PAPER = sorted((ROOT / "specs/paper").glob("*.mix"))
TINY = sorted((ROOT / "specs/tiny").glob("*.mix"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def planned(specs: list[Path], dtype: str, architecture: str) -> list[Planned]:
    """Each kernel once, whatever number of specs has it."""
    found: dict[str, Planned] = {}
    for spec in specs:
        graph, diagnostics = build_graph(spec)
        assert graph is not None, list(diagnostics)
        for each in plan(graph, dtype, architecture):
            found.setdefault(repr((each.job.name, each.job.types, each.job.constants)), each)
    return list(found.values())


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("specs", "dtype"), [(PAPER, "bfloat16"), (TINY, "float32")],
                         ids=["paper-bfloat16", "tiny-float32"])  # fmt: skip
def test_everything_fits_without_a_spill(
    specs: list[Path],
    dtype: str,
    architecture: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    plans = planned(specs, dtype, architecture)
    assert len(plans) > 40
    faulty = []
    for built in build(plans):
        found = built.resources
        if found is None or built.spills or found.serialized or not built.fits:
            faulty.append((built.planned.job.name, built.problem, found))
    assert not faulty
