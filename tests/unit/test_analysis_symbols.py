"""Params as symbols: one expression gives what each value of the param gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixerlang.algebra import number
from mixerlang.analysis import METRICS, analyze
from mixerlang.analysis.report import Analysis
from mixerlang.analysis.symbols import Unsymbolic, with_symbols
from mixerlang.cli.app import app
from mixerlang.ir.graph import Graph
from mixerlang.pipeline import build_graph

SPEC = """model m {{
  param w: int = 12 in 1..64
  param b: int = 6
  param heads: int = 2
  param name = full
  vocab = 11; dim = 12; context = 32
  layers = [{}]
}}"""
ATTENTION = "attention(heads=4, kv_heads=2, head_dim=8, keep={})"

KEEPS = [
    "window(w)", "window(w) | sinks(b)", "window(w) | sinks(3)", "sinks(b)", "dilated(w, rate=2)",
    "window(w) & window(9)", "window(2 * w + 3) | evict(norm, budget=b)",
    "window(w) | learned(budget=b, sinks=2)", "evict(tova, budget=b)",
    "gated(window(w), compressed(4), blocks(4, top=b))",
    "by_head([window(w), full])", "strided(3) & window(w)",
]  # fmt: skip


def built(path: Path, **params: int) -> Graph:
    graph, diagnostics = build_graph(path, params)
    assert graph is not None, [item.message for item in diagnostics]
    return graph


def symbolic(path: Path, *names: str) -> Graph:
    return with_symbols(built(path), list(names), lambda values: build_graph(path, values)[0])


@pytest.mark.parametrize("keep", KEEPS)
def test_one_expression_for_every_value(keep: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text(SPEC.format(ATTENTION.format(keep)))
    graph = built(path)
    general = Analysis(graph, 1, 1, "float32", "eager", symbolic(path, "w", "b")).formulas.total
    for w, b in ((12, 6), (9, 4), (40, 15)):
        own = built(path, w=w, b=b)
        for batch, length in ((1, 3), (2, 17), (1, 90)):
            total = analyze(own, batch, length).total
            for key in METRICS:
                if not key.endswith("executed"):
                    values = {"B": batch, "T": length, "L": length, "w": w, "b": b}
                    assert number(general[key], **values) == total[key], (key, w, b, length)


@pytest.mark.parametrize(
    ("layers", "name", "words"),
    [("attention(heads=2)", "x", "has no param 'x'"),
     ("attention(heads=2)", "name", "only whole numbers"),
     ("[attention(heads=2)] * w", "w", "which layers there are"),
     ("attention(heads=2, keep=strided(w * w))", "w", "more than sizes"),
     ("layer(attention(heads=2, gate=true), ffn=mlp(hidden=5 * w * w))", "w", "more than sizes")],
)  # fmt: skip
def test_what_cannot_be_a_symbol(layers: str, name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    text = SPEC.format(layers).replace("[[", "[").replace("* w]", "* w")
    path.write_text(text)
    with pytest.raises(Unsymbolic, match=words):
        symbolic(path, name)


def test_two_symbols_in_one_number(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text(SPEC.format(ATTENTION.format("window(w * b)")))
    with pytest.raises(Unsymbolic, match="another symbol make one number"):
        symbolic(path, "w", "b")
    assert symbolic(path, "w")


def test_as_a_command(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text(SPEC.format(ATTENTION.format("window(w) | learned(budget=b)")))
    arguments = ["analyze", str(path), "--symbol", "w", "--symbol", "b", "--count", "useful"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0
    assert "ranges are those for w=12, b=6" in answer.output and "8·w" in answer.output
    for wrong in (["--symbol", "z"], ["--symbol", "w", "--backend", "kernels"]):
        assert CliRunner().invoke(app, ["analyze", str(path), *wrong]).exit_code == 2
