"""list, show, explain and --version on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from mixerlang.cli import explain
from mixerlang.cli.app import app
from mixerlang.cli.catalogue import entries
from mixerlang.diagnostics import CODES
from mixerlang.primitives import ACTIVATIONS, terms
from mixerlang.semantics import open_text


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args, catch_exceptions=False)


def test_version() -> None:
    from mixerlang import __version__

    assert run("--version").stdout == f"mixerlang {__version__}\n"


def test_list_knows_every_constructor_and_definition() -> None:
    found = {(entry.name, entry.kind) for entry in entries()}
    assert found >= {(term.word, term.kind) for term in terms()}
    assert found >= {(name, "pointwise") for name in ACTIVATIONS}
    assert found >= {(name, "mixer") for name in ("gated_deltanet", "nsa", "lte", "mamba2")}
    assert found >= {(name, "block") for name in ("prenorm", "sandwich", "parallel")}


def test_everything_is_documented_in_a_line() -> None:
    assert [entry.name for entry in entries() if not entry.about] == []
    lines = run("list").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "keeps:" in lines
    assert any(line.startswith("  gated_deltanet") for line in lines)


def test_list_of_one_word_and_as_json() -> None:
    assert {e["name"] for e in json.loads(run("list", "delta", "--json").stdout)} == {
        "delta", "deltanet", "gated_deltanet",
    }
    (window,) = json.loads(run("list", "window", "--json").stdout)
    assert window["fields"] == [{
        "name": "size", "type": "an integer", "bounds": "≥ 1, < 2147483648", "required": True,
        "default": None, "description": "Tokens seen, the query's own included.",
    }]


def test_show_prints_a_definition_that_can_be_pasted() -> None:
    result = run("show", "lte")
    assert result.stdout.startswith("# Learnable token eviction (2510.20787).\nmixer lte(")
    copied = result.stdout.replace("mixer lte(", "mixer mine(")
    project = open_text(copied + "model m { vocab = 9; dim = 8; context = 99; "
                        "layers = [mine(2, size=8, budget=8)] }")
    assert project.resolve(project.models["m"]) is not None
    assert not list(project.diagnostics)
    (data,) = json.loads(run("show", "lte", "--json").stdout)
    assert data["source"] == result.stdout
    assert data["signature"] == "lte(heads, size: int, budget: int, first: int = 4, " \
        "kv_heads: int = heads)"


def test_show_prints_the_fields_of_a_constructor() -> None:
    text = run("show", "learned").stdout
    assert "budget: an integer, ≥ 1, < 2147483648, required" in text
    assert "sinks: an integer, ≥ 0, < 2147483648, default 4" in text
    assert "Slots per KV head, the sinks inside." in text
    assert "element-wise" in run("show", "relu2").stdout.lower()


def test_show_tells_all_meanings_of_a_name() -> None:
    meanings = {e["kind"] for e in json.loads(run("show", "gated", "--json").stdout)}
    assert meanings == {"mixer", "keep"}


def test_near_misses_are_told() -> None:
    assert "gated_deltanet" in run("show", "gated_deltane").stderr
    assert "`mixerlang explain` lists all" in run("explain", "MX999").stderr
    assert run("list", "gated_deltane?").exit_code == 2


def test_explain_lists_codes() -> None:
    assert json.loads(run("explain", "--json").stdout)[0] == {
        "code": "MX001", "severity": "error", "title": "file cannot be read",
    }
    assert len(run("explain").stdout.splitlines()) == len(CODES)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    text = "# MX203 unknown model field\n\nA field is *misspelt*.\n"
    monkeypatch.setattr(explain, "page", lambda code: text)
    return text


def test_explain_prints_a_page(page: str) -> None:
    assert run("explain", "mx203").stdout == page
    data = json.loads(run("explain", "MX203", "--json").stdout)
    assert data == {"code": "MX203", "severity": "error", "title": "unknown model field",
                    "page": page}


def test_explain_renders_on_a_terminal(page: str, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    explain.show(page)
    shown = capsys.readouterr().out
    assert "misspelt" in shown
    assert "*misspelt*" not in shown
