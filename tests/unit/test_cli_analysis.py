"""analyze, compare and sweep as commands."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mixerlang.analysis import analyze
from mixerlang.analysis.compare import Comparison, Entry
from mixerlang.analysis.lengths import lengths
from mixerlang.analysis.sweep import settings
from mixerlang.cli.app import app
from mixerlang.pipeline import build_graph

PAPER = Path(__file__).resolve().parents[2] / "specs/paper"
LALTE, FULL = str(PAPER / "lalte_400m.mix"), str(PAPER / "full_400m.mix")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_compare_tells_values_and_crossings() -> None:
    data = json.loads(run("compare", LALTE, FULL, "--length", "1k..64k", "--json").output)
    assert data["schema"] == 1
    assert data["lengths"] == [1024 * 2**power for power in range(7)]
    graphs = {entry["model"]: entry for entry in data["entries"]}
    for name, entry in graphs.items():
        graph, _ = build_graph(PAPER / f"{name}.mix")
        assert graph is not None
        for place, length in enumerate(data["lengths"]):
            total = analyze(graph, length=length).total
            for key, values in entry["values"].items():
                assert values[place] == total[key], (name, key, length)
    found = {each["metric"]: each for each in data["crossings"]}
    for key, each in found.items():
        at = each["length"]
        costs = {name: analyze(build_graph(PAPER / f"{name}.mix")[0], length=at).total[key]  # type: ignore[arg-type]
                 for name in (each["more"], each["less"])}
        before = {name: analyze(build_graph(PAPER / f"{name}.mix")[0], length=at - 1).total[key]  # type: ignore[arg-type]
                  for name in (each["more"], each["less"])}
        assert costs[each["more"]] > costs[each["less"]]
        assert before[each["more"]] <= before[each["less"]]
    assert found.keys() == {"flops.forward.useful", "flops.step.useful", "cache_bytes"}


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_tables_of_many_models_fit(count: int) -> None:
    graph, _ = build_graph(LALTE)
    assert graph is not None
    entries = [Entry(f"a rather long title of an entry {i}", analyze(graph)) for i in range(count)]
    text = Comparison(entries, lengths("1..1G")).table()
    assert max(map(len, text.splitlines())) <= 100
    head = text.splitlines()[2].split()
    assert head[1] == "1" and head[-1] == "1G"


def test_sweep_takes_every_combination() -> None:
    answer = run("sweep", LALTE, "--set", "w=128,256", "--set", "b=64,128", "--length", "4k",
                 "--metric", "cache_bytes")  # fmt: skip
    lines = answer.output.splitlines()
    assert [line.rpartition("  ")[0].strip() for line in lines[4:8]] == [
        "w=128, b=64", "w=128, b=128", "w=256, b=64", "w=256, b=128",
    ]  # fmt: skip


def test_values_of_a_sweep_may_hold_commas() -> None:
    assert list(settings({"k": "[1, 2], f(3, 4)", "w": "1,1"})) == [
        {"k": "[1, 2]", "w": "1"}, {"k": "f(3, 4)", "w": "1"},
    ]  # fmt: skip


def test_two_hundred_points_in_two_seconds() -> None:
    arguments = ["sweep", LALTE, "--set", "w=64,128,256,512,1024", "--set", "b=64,128,256,512",
                 "--length", "1k..512k", "--json"]  # fmt: skip
    run("sweep", LALTE, "--length", "4k")  # what is imported once
    begin = time.process_time()
    data = json.loads(run(*arguments).output)
    assert len(data["entries"]) * len(data["lengths"]) == 200
    assert time.process_time() - begin < 2


def test_a_thousand_layers_in_a_second(tmp_path: Path) -> None:
    path = tmp_path / "deep.mix"
    path.write_text("model m { vocab = 9; dim = 64; context = 9; layers = [gated_deltanet(2, 32), "
                    "attention(heads=2, keep=window(8) | learned(4))] * 500 }")
    run("analyze", str(path))
    begin = time.process_time()
    assert run("analyze", str(path)).exit_code == 0
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("style", ["markdown", "latex"])
def test_tables_for_documents(style: str) -> None:
    for arguments in (["analyze", LALTE], ["compare", LALTE, FULL]):
        text = run(*arguments, "--as", style).output
        assert r"final\_norm" in text or r"lalte\_400m" in text
        between = "|" if style == "markdown" else "&"
        rows = [line for line in text.splitlines() if between in line]
        assert len({row.count(between) for row in rows}) == 1 and len(rows) > 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--length", "0"], "is not between 1"), (["--length", "4k..1k"], "a range rises"),
     (["--length", "1e9"], "is no number of tokens"), (["--length", ""], "is no number of tokens"),
     (["--length", ",".join(map(str, range(1, 99)))], "at most 64"),
     (["--metric", "cache_byte"], "did you mean `cache_bytes`"),
     (["--metric", "joules"], "there is no metric")],
)  # fmt: skip
def test_what_means_nothing_is_refused(arguments: list[str], words: str) -> None:
    answer = run("compare", LALTE, *arguments)
    assert answer.exit_code == 2
    assert words in " ".join(answer.output.replace("│", " ").split())


def test_absurd_sweeps_are_refused() -> None:
    many = ",".join(map(str, range(64, 164)))
    answer = run("sweep", LALTE, "--set", f"w={many}", "--set", f"b={many}")
    assert answer.exit_code == 2 and "at most 1,000" in answer.output
    answer = run("sweep", LALTE, "--set", "w=128,4")  # below its range
    assert answer.exit_code == 1 and "MX" in answer.output
