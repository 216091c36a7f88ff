"""What fmt writes means what it read: the graph of every gallery spec, and of generated ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.ir.views import digest
from mixerlang.pipeline import graph_of
from mixerlang.semantics import open_text
from mixerlang.source import Source
from mixerlang.syntax import format_source

SPECS = sorted((Path(__file__).resolve().parents[2] / "specs").rglob("*.mix"))


def graph_digest(text: str) -> str:
    project = open_text(text)
    (name,) = project.models
    graph = graph_of(project, name)
    assert graph is not None, [item.message for item in project.diagnostics]
    return digest(graph)


def formatted(text: str) -> str:
    out, problems = format_source(Source("<text>", text))
    assert out is not None, [item.message for item in problems]
    return out


def untidy(text: str) -> str:
    """The same spec as a careless hand writes it."""
    lines = [line.strip().replace(" = ", "=").replace(", ", "  ,  ") for line in text.splitlines()]
    return "\n\n\n".join(lines)


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_gallery(spec: Path) -> None:
    text = spec.read_text()
    assert formatted(text) == text
    once = formatted(untidy(text))
    assert formatted(once) == once
    assert graph_digest(once) == graph_digest(untidy(text)) == graph_digest(text)


KEEPS = st.recursive(
    st.sampled_from(["full", "window(8)", "sinks(2)", "strided(4)", "blocks(8,top=4)"]),
    lambda inner: st.builds("({}{}{})".format, inner, st.sampled_from(["|", " & "]), inner),
    max_leaves=6,
)
MIXERS = st.one_of(
    st.builds("attention(4,keep={})".format, KEEPS),
    st.builds("gated_deltanet( {} ,head_dim=8 )".format, st.integers(1, 4)),
    st.builds("layer(local(2, {}),ffn=none)".format, st.integers(1, 9)),
)
LAYERS = st.lists(st.builds("[{}]*{}".format, MIXERS, st.integers(1, 3)), min_size=1, max_size=4)


@given(LAYERS)
def test_generated(parts: list[str]) -> None:
    text = f"model m {{ vocab=256;dim=32\ncontext = 64 ; layers={'+'.join(parts)}}}"
    once = formatted(text)
    assert formatted(once) == once
    assert graph_digest(once) == graph_digest(text)
