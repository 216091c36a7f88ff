"""search: settings within bounds that no other beats, and the specs that it writes."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixerlang.analysis import analyze
from mixerlang.cli.app import app
from mixerlang.pipeline import build_graph

LALTE = Path(__file__).resolve().parents[2] / "specs/tiny/lalte.mix"
SETS = ["--set", "w=16,32,64", "--set", "b=8,16,64"]


def costs(**params: int) -> tuple[int, int]:
    graph, _ = build_graph(LALTE, params)
    assert graph is not None
    total = analyze(graph, length=4096).total
    return total.number("cache_bytes"), -total.number("flops.step.useful")


def test_the_front_is_that_of_a_walk_over_all(tmp_path: Path) -> None:
    most = 200_000
    answer = CliRunner().invoke(app, [
        "search", str(LALTE), *SETS, "--within", f"cache_bytes@4k<={most}", "--best",
        "cache_bytes@4k", "--best=-flops.step.useful@4k", "-o", str(tmp_path / "found"), "--json",
    ])  # fmt: skip
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    all_of_them = {(w, b): costs(w=w, b=b) for w, b in product((16, 32, 64), (8, 16, 64))}
    within = {key: values for key, values in all_of_them.items() if values[0] <= most}
    front = {key for key, own in within.items()
             if not any(v != own and v[0] <= own[0] and v[1] <= own[1] for v in within.values())}
    assert 0 < len(front) < len(all_of_them)
    assert {(int(e["settings"]["w"]), int(e["settings"]["b"])) for e in found} == front
    for each in found:  # what is written is the model with these settings, and its own defaults
        graph, diagnostics = build_graph(each["file"])
        assert graph is not None and not len(diagnostics)
        assert {name: str(value) for name, value in graph.params.items()} == each["settings"]
        total = analyze(graph, length=4096).total
        assert total["cache_bytes"] == each["values"]["cache_bytes@4k"]
        assert total["flops.step.useful"] == each["values"]["-flops.step.useful@4k"]


def test_params_without_a_default_get_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text("model m { param w: int in 1..64; param h; vocab = 9; dim = 8; context = 9; "
                    "layers = [attention(heads=h, keep=window(w))] }")
    answer = CliRunner().invoke(app, ["search", str(path), "--set", "w=4", "--set", "h=2", "-o",
                                      str(tmp_path / "found")])  # fmt: skip
    assert answer.exit_code == 0, answer.output
    graph, _ = build_graph(tmp_path / "found/m_1.mix")
    assert graph is not None and graph.params == {"w": 4, "h": 2}


def test_times_can_bound_too() -> None:
    slow = CliRunner().invoke(app, ["search", str(LALTE), "--within", "seconds.step@4k<=1e-1"])
    fast = CliRunner().invoke(app, ["search", str(LALTE), "--within", "seconds.step@4k<=0.000001",
                                    "--gpu", "b200"])  # fmt: skip
    assert slow.output.startswith("1 of 1 settings") and fast.output.startswith("0 of 1 settings")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--within", "cache_bytes"], "is no bound"), (["--within", "joules<=3"], "no metric"),
     (["--within", "cache_bytes<=much"], "is no number"), (["--best", "--joules"], "no metric"),
     (["--within", "cache_bytes@x<=3"], "is no number"), (["--gpu", "h101"], "no device"),
     (["--set", "w=,"], "empty value")],
)  # fmt: skip
def test_what_means_nothing_is_refused(arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(app, ["search", str(LALTE), *arguments])
    assert answer.exit_code == 2
    assert words in " ".join(answer.output.replace("│", " ").split())


def test_specs_with_imports_are_not_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "own.mix").write_text("let a = attention(heads=2)")
    path = tmp_path / "a.mix"
    path.write_text('import "own.mix"\n'
                    "model m { vocab = 9; dim = 8; context = 9; layers = [a] }")
    answer = CliRunner().invoke(app, ["search", str(path), "-o", str(tmp_path / "found")])
    assert answer.exit_code == 1 and "imports" in answer.output
