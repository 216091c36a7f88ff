"""Random edits of the gallery and the prelude give a graph or diagnostics, never anything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mixerlang.diagnostics import CODES, LIMIT, Diagnostic, Diagnostics, Severity
from mixerlang.pipeline import graph_of
from mixerlang.semantics import open_text
from mixerlang.semantics.expect import ANNOTATIONS
from mixerlang.semantics.files import prelude_sources
from mixerlang.semantics.registry import constructors, kinds, words
from mixerlang.source import Source
from mixerlang.syntax.tokens import tokenize

ROOT = Path(__file__).resolve().parents[2]
SPECS = [path.read_text("utf-8") for path in sorted((ROOT / "specs").rglob("*.mix"))]
PRELUDE = [source.text for source in prelude_sources()]
CASES = [path.read_text("utf-8") for path in sorted((ROOT / "tests/cases").glob("*.mix"))]
USE = """
block odd(mixer, ffn, alpha: number = 0.5 in 0..1) {
  h = gate(norm(x)) + none
  x += alpha * mixer(h) + concat(linear(x0), none)
  x += ffn(rmsnorm(x))
}
recurrence own(rate=0.5 in 0..1) {
  state S[key, value]
  decay w[value]
  S = S @ diag(w) + rate * outer(k, v - b * S.T @ k)
  o = silu(S.T @ q)
}
let m = hymba(4)
mixer hymba(h) = mean(local(h, 8), mamba2(heads=h, head_dim=16), weights=[1, 0.5])
model all {
  param n: int = 2 in 1..4
  vocab = 256; dim = 64; context = 128
  let shared = tied(layer(nsa(4, 2, 16, size=16, recent=32)))
  block = odd(alpha=1/2)
  layers = ([m, shared, own(4), lte(4, 16, 8) >> gla(4, 16, 16)] + [based(4, 16)]) * n
  layers[0, -1, ::3] = layer(gated(kda(4, 16), none), ffn=mlp(relu2), block=parallel)
}
"""
TEXTS = [*SPECS, *(text + USE for text in PRELUDE), USE, *CASES]

WORDS = sorted({*constructors(), *words(), *kinds(), *ANNOTATIONS})
SIGNS = ["(", ")", "[", "]", "{", "}", ",", "=", "+=", "|", "&", ">>", "+", "-", "*", "/", "//",
         "@", ":", "..", ".", ";", "\n", "#", '"', "'", "\\", "\0", "é", "\u2028", "\ud800"]
NUMBERS = ["0", "1", "-1", "2", "7", "1/3", "1.5", "1e-300", "1e308", "9223372036854775807",
           "9223372036854775808", "10000", "1_000", "64..8192"]
KEYWORDS = ["let", "param", "model", "import", "mixer", "block", "recurrence", "state", "in",
            "true", "false", "none", "x", "x0", "norm", "ffn", "layers", "key", "value", "gate",
            "decay", "weight", "S", "I", "q", "k", "v", "a", "b", "dt", "o", "outer", "diag", ".T"]
PIECES = st.one_of(*map(st.sampled_from, (WORDS, SIGNS, NUMBERS, KEYWORDS)), st.text(max_size=3))

Edit = Callable[[list[str], int, int, str], None]


def delete(parts: list[str], i: int, j: int, piece: str) -> None:
    del parts[i : i + 1 + j % 3]


def insert(parts: list[str], i: int, j: int, piece: str) -> None:
    parts.insert(i, f" {piece} ")


def replace(parts: list[str], i: int, j: int, piece: str) -> None:
    parts[i] = piece


def duplicate(parts: list[str], i: int, j: int, piece: str) -> None:
    parts[i:i] = parts[i : i + 1 + j % 9]


def swap(parts: list[str], i: int, j: int, piece: str) -> None:
    parts[i], parts[j] = parts[j], parts[i]


def tokens(text: str) -> list[str]:
    return [token.text for token in tokenize(Source("", text), Diagnostics())]


SPLITS: list[Callable[[str], list[str]]] = [tokens, lambda text: text.splitlines(True), list]
EDITS: list[Edit] = [delete, insert, replace, duplicate, swap]
PLACES = st.integers(0, 2**20)
CHANGES = st.lists(
    st.tuples(st.sampled_from(SPLITS), st.sampled_from(EDITS), PLACES, PLACES, PIECES),
    min_size=1, max_size=8,
)


@st.composite
def edited(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(TEXTS))
    for split, edit, i, j, piece in draw(CHANGES):
        parts = split(text)
        if parts:
            edit(parts, i % len(parts), j % len(parts), piece)
        text = "".join(parts)
    return text


def inside(item: Diagnostic) -> bool:
    """Whether all places of a diagnostic lie in their texts."""
    spans = [span for span in (item.span, *(note.span for note in item.notes)) if span is not None]
    return all(0 <= span.start <= span.end <= len(span.source.text) for span in spans)


def check_text(text: str) -> None:
    """A graph for each model, or errors; never both, within a second or two."""
    start = time.process_time()
    project = open_text(text)
    graphs = [graph_of(project, name) for name in project.models]
    items = project.diagnostics.sorted()
    assert all(item.code in CODES and inside(item) for item in items)
    assert all("\n" not in item.message for item in items)
    assert len(items) <= LIMIT + 1
    errors = any(item.severity is Severity.ERROR for item in items)
    assert errors == project.diagnostics.errors
    assert errors or None not in graphs
    assert time.process_time() - start < 5, "too slow"


@given(edited())
@example("")
@example("#")
@example("\ufeff")
@settings(
    max_examples=3000, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_edited_specs(text: str) -> None:
    check_text(text)


@given(st.text())
@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
def test_any_text(text: str) -> None:
    check_text(text)
