"""validate: what analyze says beside what runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixerlang.cli.app import app
from mixerlang.primitives.ffn import SwiGLU
from mixerlang.primitives.part import Part, Workload

TINY = Path(__file__).resolve().parents[2] / "specs/tiny"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))


def test_a_model_is_what_is_said_of_it() -> None:
    arguments = ["validate", str(TINY / "lansa.mix"), "--length", "40", "--device", "cpu"]
    answer = CliRunner().invoke(app, [*arguments, "--json"])
    assert answer.exit_code == 0, answer.output
    data = json.loads(answer.output)
    assert data["agrees"] and all(each["agrees"] for each in data["checked"])
    whats = [each["what"] for each in data["checked"]]
    assert whats[0] == "parameters" and "layer 1 (sparse) forward" in whats
    assert whats[-5:] == ["forward", "training", "backward", "step", "cache"]
    assert all(each["found"] > 0 for each in data["checked"])
    assert data["seconds"].keys() == {"forward", "step", "training"}


def test_a_wrong_formula_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: SwiGLU, width: int, work: Workload) -> list[Part]:
        return []

    monkeypatch.setattr(SwiGLU, "parts", wrong)
    answer = CliRunner().invoke(app, ["validate", str(TINY / "swa.mix"), "--length", "8"])
    assert answer.exit_code == 1
    assert "off by +" in answer.output and "equal" in answer.output
    assert max(map(len, answer.output.splitlines())) <= 100


def test_a_device_that_is_not_there() -> None:
    answer = CliRunner().invoke(app, ["validate", str(TINY / "swa.mix"), "--device", "cuda:99"])
    assert answer.exit_code == 1
