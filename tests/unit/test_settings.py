"""Choosing a model, and setting its params from outside."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mixerlang.diagnostics import Diagnostic
from mixerlang.ir.graph import Graph
from mixerlang.pipeline import build_graph, check
from mixerlang.primitives.attention import Attention
from mixerlang.primitives.keep import Evict, Union, Window

TEXT = """
model first {
  param w: int = 64 in 8..128
  param p = tova
  param d: float = 0.5 in 0..1
  param tie: bool = false
  param heads: int = 4
  param mixers: list = [attention(heads)]
  vocab = 256; dim = 128; context = 256
  dropout = d / 2
  tie_embeddings = tie
  layers = [attention(heads, keep=window(w) | evict(p, 8))] + mixers
}
model second {
  vocab = 256; dim = 128; context = 256
  layers = [attention(4)]
}
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "models.mix"
    path.write_text(TEXT)
    return str(path)


def build(spec: str, **params: Any) -> Graph:
    graph, diagnostics = build_graph(f"{spec}:first", params)
    assert graph is not None, [item.message for item in diagnostics]
    return graph


def told(spec: str, **params: Any) -> list[Diagnostic]:
    graph, diagnostics = build_graph(f"{spec}:first", params)
    assert graph is None
    assert all("\n" not in item.message for item in diagnostics)
    return diagnostics.sorted()


def keep(graph: Graph) -> Union:
    op = graph["layers.0.mixer"].op
    assert isinstance(op, Attention) and isinstance(op.keep, Union)
    return op.keep


def test_defaults(spec: str) -> None:
    graph = build(spec)
    assert graph.params == {
        "w": 64, "p": "tova", "d": 0.5, "tie": False, "heads": 4, "mixers": "[attention(heads)]"
    }
    assert graph.fields.dropout == 0.25


@pytest.mark.parametrize("value", [32, "32", " 16 + 16 ", "64/2", "8 * heads", Fraction(32)])
def test_integers(spec: str, value: Any) -> None:
    graph = build(spec, w=value)
    window = keep(graph).parts[0]
    assert isinstance(window, Window) and window.size == 32
    assert graph.params["w"] == 32


def test_words_truth_values_and_numbers(spec: str) -> None:
    graph = build(spec, p="h2o", tie=True, d=0.1)
    evict = keep(graph).parts[1]
    assert isinstance(evict, Evict) and evict.policy == "h2o"
    assert graph.fields.tie_embeddings and graph.fields.dropout == 0.05
    assert build(spec, tie="true").fields.tie_embeddings


def test_mixers(spec: str) -> None:
    graph = build(spec, mixers="[local(4, 8), deltanet(4, 32)] * 2")
    assert len(graph.layers) == 5
    assert graph.params["mixers"] == "[local(4, 8), deltanet(4, 32)] * 2"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"w": 4}, "MX302"),
        ({"w": 2**63}, "MX013"),
        ({"w": "1e999999999"}, "MX013"),
        ({"w": 8.5}, "MX301"),
        ({"w": True}, "MX301"),
        ({"w": float("nan")}, "MX201"),
        ({"w": None}, "MX201"),
        ({"p": "tovaa"}, "MX201"),
        ({"p": "scalar"}, "MX301"),
        ({"w": "w"}, "MX206"),
        ({"w": "0x10"}, "MX104"),
        ({"w": "1 +"}, "MX301"),
        ({"heads": -1, "mixers": "[attention(4)]"}, "MX302"),
        ({"mixers": "[]]"}, "MX102"),
        ({"mixers": "window(8)"}, "MX301"),
    ],
)
def test_values_that_do_not_fit(spec: str, params: dict[str, Any], code: str) -> None:
    assert [item.code for item in told(spec, **params)] == [code]


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "\n", "512\nmodel x {}", "512; let b = 3", '512 } model x { vocab = "',
        "512 # 3\n4", "__import__('os')", '__import__("os").system("true")', "'512'", '"512"',
        "\0", "\x1b[31m512", "512 }", "= 512", "let a = 3", "lambda: 512",
        "512" * 100_000, "(" * 1000, "\u2028" * 10, "f(f)", "[x for x in y]", "\ud800",
    ],
)
def test_values_are_never_more_than_one_expression(spec: str, value: str) -> None:
    items = told(spec, w=value)
    assert items and len(items) < 5
    assert all(item.span is None or item.span.source.path == "--set w" for item in items)
    assert all(item.message.isprintable() and len(item.message) < 200 for item in items)


def test_a_value_in_error_is_shown_in_a_source_of_its_own(spec: str) -> None:
    (item,) = told(spec, w="900")
    assert item.span is not None and item.span.text == "900"
    assert item.span.source.path == "--set w"
    assert item.message == "900 is outside 8..128"


def test_every_unknown_param_is_told(spec: str) -> None:
    items = told(spec, ww=3, colour=4, **{"a\nb": 1})
    assert [item.code for item in items] == ["MX208"] * 3
    assert all(item.span is None for item in items)
    assert {item.help for item in items} >= {"did you mean `w`?"}


def test_choosing(spec: str) -> None:
    graph, _ = build_graph(f"{spec}:second")
    assert graph is not None and graph.name == "second"
    graph, diagnostics = build_graph(spec)
    (item,) = diagnostics
    assert graph is None and item.code == "MX207" and "first, second" in item.message
    graph, diagnostics = build_graph(f"{spec}:secnd")
    (item,) = diagnostics
    assert graph is None and item.code == "MX207" and item.help == "did you mean `second`?"


def test_check_reads_all_models_or_one(spec: str) -> None:
    graphs, diagnostics = check(spec)
    assert list(graphs) == ["first", "second"] and not len(diagnostics)
    graphs, _ = check(f"{spec}:second")
    assert list(graphs) == ["second"]
    graphs, _ = check(f"{spec}:first", {"w": 16})
    assert graphs["first"].params["w"] == 16
    graphs, diagnostics = check(spec, {"w": 16})
    assert not graphs and [item.code for item in diagnostics] == ["MX207"]


def test_a_broken_model_is_not_called_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text("model m {{ vocab = 256 }")
    for spec in (f"{path}:m", str(path)):
        _, diagnostics = build_graph(spec)
        assert "MX207" not in [item.code for item in diagnostics]
