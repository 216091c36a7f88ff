"""What the benchmark scripts share: rows merged by op, and the page that is written from them."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def harness() -> ModuleType:
    import harness

    return harness


class Cell(NamedTuple):
    number: int

    def __str__(self) -> str:
        return f"cell {self.number}"


def fails_late(cell: Cell) -> Any:
    yield {"number": cell.number}
    if cell.number == 1:
        raise RuntimeError("broken")
    yield {"number": -cell.number}


def dies(cell: Cell) -> Any:
    if cell.number == 1:
        sys.exit(1)
    yield {"number": cell.number}


def test_the_page_is_written_from_the_rows() -> None:
    import tables

    rows = json.loads((FOLDER / "results" / "attention.json").read_text())
    assert (FOLDER / "results" / "attention.md").read_text() == tables.page(rows)


def test_rows_take_the_place_of_their_op(harness: ModuleType, tmp_path: Path) -> None:
    def row(op: str, shape: str, ours: float) -> dict[str, Any]:
        found: dict[str, Any] = harness.row(op, shape, "fwd", "gpu", ours, "peer", 2.0)
        return found

    harness.save([row("a", "x", 1.0), row("b", "x", 1.0), row("b", "y", 1.0)], tmp_path)
    harness.save([row("b", "x", 3.0)], tmp_path, keep=lambda old: old["shape"] == "y")
    harness.save([], tmp_path)
    rows = json.loads((tmp_path / "attention.json").read_text())
    assert [(r["op"], r["shape"], r["ours_ms"]) for r in rows] == [
        ("a", "x", 1.0), ("b", "y", 1.0), ("b", "x", 3.0)
    ]
    assert rows[0].keys() >= {"op", "shape", "mode", "clock", "ours_ms", "peer", "peer_ms", "gpu",
                              "versions", "date"}


def test_a_failing_cell_spoils_no_other(
    harness: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = harness.run(harness.Suite([Cell(1), Cell(2)], fails_late))
    assert [row["number"] for row in rows] == [1, 2, -2]
    assert "broken" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_dies_loses_one_cell(
    harness: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = multiprocessing.get_context("fork")
    monkeypatch.setattr(harness.multiprocessing, "get_context", lambda _: forked)
    cells = [Cell(number) for number in range(4)]
    team = harness.Team(harness.Suite(cells, dies))
    team.start([cells[:3], cells[3:]], meet=True)
    rows = team.results()
    assert rows == {"cell 0": [{"number": 0}], "cell 1": [], "cell 2": [{"number": 2}],
                    "cell 3": [{"number": 3}]}


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.01558, "0.0156"), (1.569, "1.569"), (12.345, "12.35"),
                        (243.21, "243.2"), (1234.5, "1234"), (0.0, "0.0000")]
)
def test_four_digits_that_count(value: float | None, text: str) -> None:
    import tables

    assert tables.ms(value) == text
