"""`mixerlang kernels`, and what `compile` says of kernels."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
import torch
from typer.testing import CliRunner, Result

from mixerlang.cli import guard
from mixerlang.cli.app import app
from mixerlang.codegen import build
from mixerlang.kernels import ahead

ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "specs/tiny/lalte.mix")
NSA = str(ROOT / "specs/tiny/nsa.mix")
WIDE = """model m {
  vocab = 9; dim = 512; context = 9
  layers = [attention(heads=1, keep=window(8))]
}
"""


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))


def test_says_what_runs_each_layer() -> None:
    result = run("kernels", TINY)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split("  ") for line in map(squeezed, result.stdout.splitlines()[2:])] == [
        ["gdn", "0,2", "recurrence", "recurrence kernels"],
        ["lte", "1,3", "window(32) | learned(16)", "scorer, eviction, attention kernels"],
    ]


def squeezed(line: str) -> str:
    """Columns two spaces apart."""
    return "  ".join(cell.strip() for cell in line.split("  ") if cell.strip())


def test_every_fallback_has_its_reason() -> None:
    rows = json.loads(run("kernels", NSA, "--json").stdout)["kernels"]
    keeps = ["compressed(16)", "blocks(size=16, top=4)", "window(32)"]
    assert [row["what"] for row in rows] == keeps
    assert {row["by"] for row in rows} == {"plain PyTorch"}
    assert [row["reason"] for row in rows] == [
        "summaries of blocks have no kernel yet",
        "chosen blocks have no kernel yet",
        "it is gated with compressed(16)",
    ]
    assert all(row["layers"] == [0, 1, 2, 3] and row["place"] == "nsa.mix:8" for row in rows)


def test_compile_tells_the_same(tmp_path: Path) -> None:
    told = run("kernels", TINY).stdout
    result = run("compile", TINY, "-o", tmp_path / "out")
    assert result.stdout.endswith(f"\n\n{told}")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["kernels"] == json.loads(run("kernels", TINY, "--json").stdout)["kernels"]
    model = (tmp_path / "out/model.py").read_text()
    assert "# On a GPU: window(32) | learned(16): scorer, " in model
    answer = json.loads(run("compile", TINY, "-o", tmp_path / "out", "--json").stdout)
    assert answer["kernels"] == config["kernels"]


def test_sizes_beyond_the_kernels_are_told(tmp_path: Path) -> None:
    spec = tmp_path / "wide.mix"
    spec.write_text(WIDE)
    for command in (["kernels", spec], ["compile", spec, "-o", tmp_path / "out"]):
        result = run(*command)
        assert result.exit_code == 0
        assert "MX601 no kernel serves head_dim 512" in result.stderr
        assert "kernels serve head_dims up to 256" in result.stderr
        assert "(heads of 512 channels: the kernels serve up to 256)" in result.stdout


def test_builds_and_lists_what_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two kernels alone: all of them take a while."""
    everything = build.plan
    monkeypatch.setattr(build, "plan", lambda *args: everything(*args)[-2:])
    result = run("kernels", TINY, "--gpu", "sm_90", "--gpu", "sm_80", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.stderr
    table = result.stdout.split("\n\n")[1].splitlines()
    assert table[0].split() == ["kernel", "(bfloat16)", "GPU", "tile", "warps", "shared",
                                "registers", "spilled"]
    assert [row.split()[-1] for row in table[2:]] == ["0"] * 4
    assert sum("sm_80" in row for row in table) == sum("sm_90" in row for row in table) == 2
    built = json.loads(run("kernels", TINY, "--gpu", "sm_90", "--json").stdout)["built"]
    assert len(built) == 2 and all(row["registers"] > 16 for row in built)


def test_what_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = build.plan

    def attention_alone(*args: Any) -> list[build.Planned]:
        return [each for each in everything(*args) if each.job.name.startswith("attention")][:1]

    monkeypatch.setattr(build, "plan", attention_alone)
    monkeypatch.setattr(build, "_resources", lambda *_: (None, "OutOfResources: no room"))
    result = run("kernels", TINY, "--gpu", "sm_90")
    assert result.exit_code == 1
    assert "lalte.mix:12:13: error MX602" in result.stderr and "no room" in result.stderr


def test_what_is_missing_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("compile", TINY, "-o", tmp_path / "out", "--autotune")
    assert result.exit_code == 1 and "needs a GPU" in result.stderr
    assert not (tmp_path / "out").exists()


def no_triton(name: str) -> ModuleType:
    raise ModuleNotFoundError("No module named 'triton'", name="triton")


def broken_triton(name: str) -> ModuleType:
    raise ImportError("libtriton.so: no such file")


@pytest.mark.parametrize(
    "importing, told", [(no_triton, "is not installed"), (broken_triton, "cannot be imported: lib")]
)
def test_triton_that_is_missing_or_broken_is_told(
    importing: Callable[[str], ModuleType], told: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "import_module", importing)
    for command in (["kernels", TINY, "--gpu", "sm_80"],
                    ["compile", TINY, "-o", tmp_path / "out", "--autotune"]):
        result = run(*command)
        assert result.exit_code == 1 and f"needs triton, which {told}" in result.stderr
        assert "help: pip install triton" in result.stderr


def test_a_disk_that_fails_is_not_the_kernels_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", "/cache")

    everything = build.plan

    def attention_alone(*args: Any) -> list[build.Planned]:
        return [each for each in everything(*args) if each.job.name.startswith("attention")][:1]

    monkeypatch.setattr(build, "plan", attention_alone)
    monkeypatch.setattr(ahead, "build", denied)
    result = run("kernels", TINY, "--gpu", "sm_90")
    assert result.exit_code == 1
    assert result.stderr == "error: `/cache`: Permission denied\n"
