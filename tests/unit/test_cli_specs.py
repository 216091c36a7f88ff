"""check, fmt, graph, analyze and compile on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mixerlang.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
GOOD = str(ROOT / "specs/paper/lalte_400m.mix")
TINY = str(ROOT / "specs/tiny/lalte.mix")
KEYS = ["code", "severity", "message", "path", "line", "column", "end_line", "end_column", "help"]


def run(*args: str | Path, input: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], input=input, catch_exceptions=False)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.mix"
    path.write_text("model m {\n  vocab = 9; dim = 8; context = 9\n"
                    "  layers = [attenton(heads=2), attention(heads=2, depth=1)]\n}\n")
    return path


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A spec with a warning alone."""
    path = tmp_path / "odd.mix"
    path.write_text("model m {\n  param w: int = 3\n  vocab = 9; dim = 8; context = 9\n"
                    "  layers = [attention(heads=2)]\n}\n")
    return path


# ------------------------------------------------------------------------------------------ check


def test_check_of_good_specs() -> None:
    result = run("check", GOOD, TINY)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "2 models in 2 files: nothing to report\n"


def test_check_tells_all_errors_of_all_files(bad: Path) -> None:
    result = run("check", bad, GOOD, "nowhere.mix", "--format", "concise")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{bad}:3:13: error MX201 unknown name `attenton`",
        f"{bad}:3:51: error MX202 `attention` has no argument `depth`",
        "error MX001 `nowhere.mix` does not exist",
    ]


def test_check_json(bad: Path) -> None:
    for options in (["--json"], ["--format", "json"]):
        result = run("check", bad, *options)
        items = json.loads(result.stdout)
        assert result.exit_code == 1
        assert [list(item) for item in items] == [KEYS, KEYS]
        place = [items[0][key] for key in ("line", "column", "end_line", "end_column")]
        assert place == [3, 13, 3, 21]
        assert items[0]["help"] == "did you mean `attention`?"
    assert json.loads(run("check", GOOD, "--json").stdout) == []


def test_check_for_github(bad: Path) -> None:
    lines = run("check", bad, "--format", "github").stdout.splitlines()
    place = "line=3,endLine=3,col=13,endColumn=21"
    assert lines[0].startswith(f"::error file={bad},{place},title=MX201::unknown name")


def test_warnings_alone_are_fine(odd: Path) -> None:
    result = run("check", odd)
    assert result.exit_code == 0
    assert "warning MX408" in result.stdout
    assert "1 warning" in result.stdout


def test_check_with_settings_and_one_model(tmp_path: Path) -> None:
    path = tmp_path / "two.mix"
    body = "vocab = 9; dim = 8; context = 9; layers = [attention(heads=h)]"
    path.write_text("".join(f"model {name} {{ param h: int = {heads}; {body} }}\n"
                            for name, heads in (("a", 2), ("b", 3))))
    assert run("check", f"{path}:a").exit_code == 0
    assert run("check", path).exit_code == 1
    assert run("check", f"{path}:b", "--set", "h=2", "--set", "h=4").exit_code == 0
    assert "MX207" in run("check", path, "--set", "h=4").stdout
    assert "MX208" in run("check", f"{path}:a", "--set", "heads=4").stdout
    assert "MX207" in run("check", f"{path}:c").stdout


def test_a_file_that_two_specs_import_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "lib.mix").write_text("let a = nosuchthing\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.mix").write_text('import "lib.mix"\n')
    result = run("check", tmp_path / "one.mix", tmp_path / "two.mix", "--json")
    assert [item["code"] for item in json.loads(result.stdout)] == ["MX201"]


def test_root_widens_what_may_be_imported(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "lib.mix").write_text("let local(w) = attention(heads=2, keep=window(w))\n")
    spec = tmp_path / "inner/a.mix"
    spec.write_text('import "../lib.mix"\nmodel m { vocab = 9; dim = 8; context = 9; '
                    "layers = [local(4)] }\n")
    assert "MX004" in run("check", spec).stdout
    assert run("check", spec, "--root", tmp_path).exit_code == 0


@pytest.mark.parametrize(
    "args",
    [[], ["check"], ["check", GOOD, "--set", "w"], ["check", GOOD, "--set", "=3"],
     ["check", GOOD, "--format", "xml"], ["analyze", GOOD, "--batch", "0"], ["nonsense"],
     ["compile", GOOD], ["explain", "MX999"], ["show", "gated_deltane"]],
    ids=" ".join,
)
def test_usage_errors(args: list[str]) -> None:
    assert run(*args).exit_code == 2


# -------------------------------------------------------------------------------------------- fmt

UGLY = "model m{vocab=9;dim=8 # eight\n  context=9\n layers=[attention(heads=2)]}\n"


def test_fmt_in_place_and_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text(UGLY)
    path.chmod(0o640)
    assert run("fmt", path).stdout == f"{path} changed\n"
    text = path.read_text()
    assert text != UGLY
    assert "# eight" in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert run("fmt", path).stdout == ""
    assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.mix"]


def test_fmt_check_and_diff_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text(UGLY)
    check, diff = run("fmt", path, "--check"), run("fmt", path, "--diff")
    assert (check.exit_code, check.stdout) == (1, f"{path} would change\n")
    assert diff.exit_code == 1
    assert diff.stdout.startswith(f"--- {path}\n+++ {path}\n@@")
    data = json.loads(run("fmt", path, "--check", "--json").stdout)
    assert data == {"changed": [str(path)], "unchanged": []}
    assert path.read_text() == UGLY
    run("fmt", path)
    assert run("fmt", path, "--check").exit_code == 0
    assert run("fmt", path, "--diff").stdout == ""


@pytest.mark.parametrize(
    ("before", "change"),
    [("let a = 1", "\\ No newline at end of file"), ("let a = 1\r\n", "-let a = 1␍"),
     ("\ufefflet a = 1\n", "-\N{REPLACEMENT CHARACTER}let a = 1")],
)
def test_fmt_diff_shows_what_is_not_seen(before: str, change: str) -> None:
    result = run("fmt", "--diff", "-", input=before.encode())
    assert result.exit_code == 1
    assert change in result.stdout.splitlines()


def test_fmt_leaves_a_file_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mix"
    path.write_text(UGLY)
    monkeypatch.setattr("os.access", lambda *args: False)  # root may write to any
    result = run("fmt", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: `{path}`: Permission denied\n"
    assert path.read_text() == UGLY


def test_fmt_of_stdin(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text(UGLY)
    run("fmt", path)
    result = run("fmt", "-", input=UGLY)
    assert (result.exit_code, result.stdout) == (0, path.read_text())
    broken = run("fmt", "-", input="model {")
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "<stdin>:1:7: error MX102" in broken.stderr
    assert "MX002" in run("fmt", "-", input=b"\xff\xfe").stderr


def test_fmt_leaves_a_broken_file_and_goes_on(tmp_path: Path) -> None:
    broken, ugly = tmp_path / "broken.mix", tmp_path / "ugly.mix"
    broken.write_text("model m { layers = ] }")
    ugly.write_text(UGLY)
    result = run("fmt", broken, ugly, tmp_path / "none.mix")
    assert result.exit_code == 1
    assert broken.read_text() == "model m { layers = ] }"
    assert ugly.read_text() != UGLY
    assert "MX102" in result.stderr
    assert "MX001" in result.stderr


def test_fmt_writes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mix"
    path.write_text(UGLY)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run("fmt", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: `{path}`: No space left on device\n"
    assert path.read_text() == UGLY
    assert [p.name for p in tmp_path.iterdir()] == ["a.mix"]


# ---------------------------------------------------------------------------------- graph, analyze


def test_graph_views(tmp_path: Path) -> None:
    assert "gdn  layers 0,2,...,22" in run("graph", GOOD).stdout
    assert run("graph", GOOD, "--as", "mermaid").stdout.startswith("flowchart TB\n")
    picture = tmp_path / "a.svg"
    result = run("graph", GOOD, "--as", "svg", "-o", picture)
    assert (result.exit_code, result.stdout) == (0, "")
    assert picture.read_text().startswith("<svg ")
    data = json.loads(run("graph", GOOD, "--json").stdout)
    assert (data["model"], len(data["layers"])) == ("lalte_400m", 24)


def test_analyze() -> None:
    data = json.loads(run("analyze", TINY, "--json", "--batch", "2", "--set", "w=64").stdout)
    assert {"model", "parameters", "flops", "cache_bytes", "layers"} <= data.keys()
    assert data["flops"]["forward"]["dense"] > 0
    assert (data["batch"], data["length"], data["params"]) == (2, 256, {"w": 64, "b": 16})
    longer = json.loads(run("analyze", TINY, "--json", "--length", "512").stdout)
    assert longer["length"] == 512
    half = json.loads(run("analyze", TINY, "--json", "--dtype", "bfloat16").stdout)
    assert half["weight_bytes"] == 2 * half["parameters"]
    assert "939,736" in run("analyze", TINY).stdout


@pytest.mark.parametrize("command", ["graph", "analyze", "train", "run"])
def test_errors_of_a_spec_go_to_stderr(command: str, bad: Path) -> None:
    result = run(command, bad)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error MX201" in result.stderr
    listed = run(command, bad, "--json")
    assert listed.exit_code == 1
    assert [item["code"] for item in json.loads(listed.stdout)] == ["MX201", "MX202"]


def test_warnings_go_beside_the_result(odd: Path) -> None:
    result = run("analyze", odd, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["model"] == "m"
    assert "warning MX408" in result.stderr


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "none" / "a.svg"
    result = run("graph", GOOD, "-o", target)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: `")
    assert "No such file or directory" in result.stderr
    (item,) = json.loads(run("graph", GOOD, "-o", target, "--json").stdout)
    assert list(item) == [*KEYS]
    assert item["code"] is None


# ---------------------------------------------------------------------------------------- compile


def test_compile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("compile", TINY, "-o", out)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{out}: lalte_tiny, 939,736 parameters, ")
    data = json.loads(run("compile", TINY, "-o", out, "--json").stdout)
    assert "model.py" in data["files"]
    assert all((out / name).is_file() for name in data["files"])
    (out / "mine.txt").write_text("")
    refused = run("compile", TINY, "-o", out)
    assert refused.exit_code == 1
    assert "MX007" in refused.stderr
