"""Graphs as trees, Mermaid charts, pictures and data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.ir.graph import Graph
from mixerlang.ir.groups import Fold, fold, groups_of, pattern_of, spell_indices, spell_pattern
from mixerlang.ir.spelling import spell
from mixerlang.ir.views import as_json, digest, mermaid, svg, tree
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.mix"))

MIXED = """\
mixer hymba(h) = mean(attention(heads=h, keep=window(64)), mamba2(heads=h, head_dim=32))
block odd(mixer, ffn) { h = norm(x); x += 0.5 * mixer(h) * gate(h) + ffn(h); x += scale(x0) }
model m {
  vocab = 256; dim = 128; context = 256
  let a = gated_deltanet(heads=4, head_dim=32)
  let b = attention(heads=4, kv_heads=2, keep=gated(compressed(8), window(12)))
  let t = tied(layer(b))
  layers = ([a] * 3 + [b]) * 6 + [layer(hymba(4), block=odd), t, a, t]
}
"""


def graph_of(path: Path) -> Graph:
    graph, diagnostics = build_graph(path)
    assert graph is not None, [item.message for item in diagnostics]
    return graph


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    path = tmp_path_factory.mktemp("specs") / "<b>&'\"x.mix"
    path.write_text(MIXED)
    return graph_of(path)


def unfold(parts: list[int | Fold] | tuple[int | Fold, ...]) -> list[int]:
    found: list[int] = []
    for part in parts:
        found += unfold(part.parts) * part.times if isinstance(part, Fold) else [part]
    return found


@given(st.lists(st.integers(0, 2), max_size=60))
def test_folding_loses_nothing(items: list[int]) -> None:
    assert unfold(fold(items)) == items


def test_folding_finds_nested_repetitions() -> None:
    assert fold([0, 1] * 12) == [Fold(12, (0, 1))]
    assert fold(([0] * 3 + [1]) * 6) == [Fold(6, (Fold(3, (0,)), 1))]
    assert fold([0, 1, 2]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([3], "3"),
        ([0, 2], "0,2"),
        (list(range(0, 24, 2)), "0,2,...,22"),
        (list(range(6)), "0-5"),
        ([0, 1, 2, 4, 5, 6], "0-2,4-6"),
        ([i for i in range(24) if i % 4 != 3], "0-2,4-6,...,20-22"),
    ],
)
def test_indices(indices: list[int], text: str) -> None:
    assert spell_indices(indices) == text


def test_pattern_reads_like_the_spec(mixed: Graph) -> None:
    assert spell_pattern(pattern_of(mixed, groups_of(mixed))) == (
        "([a] * 3 + [b]) * 6 + [hymba, t, a, t]"
    )


def test_tied_layers_are_a_group_of_their_own(mixed: Graph) -> None:
    titles = {group.title: group.indices for group in groups_of(mixed)}
    assert titles["t"] == [25, 27]
    assert titles["b"] == list(range(3, 24, 4))


def test_layers_that_differ_get_numbered_titles(tmp_path: Path) -> None:
    path = tmp_path / "two.mix"
    path.write_text("model m { vocab = 9; dim = 8; context = 9; layers = ["
                    "attention(heads=2), attention(heads=4), attention(heads=2)] }")
    assert [(g.title, g.indices) for g in groups_of(graph_of(path))] == [
        ("attention", [0, 2]), ("attention (2)", [1]),
    ]


def test_tree_of_a_paper_model() -> None:
    text = tree(graph_of(ROOT / "specs/paper/lalte_400m.mix"))
    lines = text.splitlines()
    assert lines[0] == "lalte_400m · 360,246,144 parameters · lalte_400m.mix:2"
    assert "├─ layers      [gdn, lte] * 12" in lines
    assert any("gdn  layers 0,2,...,22 · 13,924,496 parameters each" in line for line in lines)
    assert any("keep=window(768) |" in line for line in lines)
    assert lines[-1] == "└─ head        32,000 logits, the embedding's weight"


def test_tree_tells_shared_weights_and_what_is_read(mixed: Graph) -> None:
    lines = tree(mixed).splitlines()
    assert any("tied: norm1, mixer, norm2, ffn" in line for line in lines)
    assert any(line.endswith("scale  <- x0") for line in lines)
    assert any(line.endswith("mixer1 + mixer2") for line in lines)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_views_of_the_gallery(path: Path) -> None:
    graph = graph_of(path)
    assert max(map(len, tree(graph).splitlines())) <= 100
    ElementTree.fromstring(svg(graph))
    assert mermaid(graph).startswith("flowchart TB\n")
    json.dumps(as_json(graph))


def test_svg_is_self_contained_and_escaped(mixed: Graph) -> None:
    text = svg(mixed)
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>&'\"x.mix:3" in "".join(word or "" for word in words)
    assert re.findall(r"https?://\S+", text) == ['http://www.w3.org/2000/svg"']
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags == {"svg", "title", "style", "defs", "marker", "path", "rect", "text", "circle"}


def test_svg_stays_inside_its_page(mixed: Graph) -> None:
    root = ElementTree.fromstring(svg(mixed))
    page = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(box.attrib.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= page[0]
        assert 0 <= y <= y + h <= page[1]


def test_svg_names_stay_inside_narrow_boxes(tmp_path: Path) -> None:
    name = "w" * 40
    (tmp_path / "a.mix").write_text(
        f"model m {{ vocab = 256; dim = 64; context = 64; let a = attention(heads=2)\n"
        f"let {name} = attention(heads=4)\nlayers = (([{name}, a] * 2 + [a]) * 2 + [a]) * 2 }}"
    )
    graph, _ = build_graph(str(tmp_path / "a.mix"))
    assert graph is not None
    shown = re.findall(r">(w+…)<", svg(graph))
    assert len(shown[0]) * 8 <= 250 - 6 * 14  # inside three frames


def test_mermaid_is_whole(mixed: Graph) -> None:
    lines = [line.strip() for line in mermaid(mixed).splitlines()]
    opened = sum(line.startswith("subgraph") for line in lines)
    assert opened == lines.count("end") > 0
    defined = {line.split("[")[0].split("(")[0] for line in lines if re.match(r"n\d+[\[(]", line)}
    edges = [line.split(" --> ") for line in lines if " --> " in line]
    assert {name for edge in edges for name in edge} == defined
    labels = re.findall(r'\["(.*)"\]', "\n".join(lines))
    assert not [label for label in labels if '"' in label or "&" in label]


def test_mermaid_draws_the_edges_of_a_layer(mixed: Graph) -> None:
    """Each kind of layer is opened once, so edges are those of one layer of each kind."""
    inside = sum(
        len(mixed.inputs(id)) for group in groups_of(mixed) for id in group.first.nodes
    )
    again = len(["the second t", "the second a"])
    outside = len(["final norm", "head"])
    assert mermaid(mixed).count(" --> ") == inside + again + outside


def test_data_holds_the_whole_graph(mixed: Graph) -> None:
    data = as_json(mixed)
    assert data["parameters"] == mixed.parameters()
    assert [node["id"] for node in data["nodes"]] == [node.id for node in mixed]
    known: set[str] = set()
    for node in data["nodes"]:  # everything is there before it is read
        assert known.issuperset(node["inputs"])
        known.add(node["id"])
    tied = next(node for node in data["nodes"] if node["id"] == "layers.27.mixer")
    assert tied["weights"] == "layers.25.mixer"


def test_digest_tells_models_apart_and_ignores_layout(tmp_path: Path) -> None:
    text = (ROOT / "specs/tiny/lalte.mix").read_text()
    path = tmp_path / "a.mix"
    found = []
    for variant in (text, "# a comment\n" + text, text.replace("int = 32 in", "int = 40 in")):
        path.write_text(variant)
        found.append(digest(graph_of(path)))
    assert found[0] == found[1] != found[2]


def test_spelling_is_read_back() -> None:
    """What `spell` writes of a keep, the language reads as the same keep."""
    texts = [
        "window(768) | learned(512)",
        "window(8) & (sinks(4) | strided(2))",
        "gated(compressed(8, stride=4, map=mlp), blocks(size=8, top=4), window(12))",
        "by_head([full, window(8)])",
    ]
    for text in texts:
        graph = _with_keep(text)
        again = _with_keep(spell(graph["layers.0.mixer"].op.arguments()["keep"]))
        assert again["layers.0.mixer"].op == graph["layers.0.mixer"].op


def _with_keep(keep: str) -> Graph:
    from mixerlang.pipeline import graph_of as graph_of_project
    from mixerlang.semantics import open_text

    project = open_text("model m { vocab = 9; dim = 32; context = 4096; layers = "
                        f"[attention(heads=4, kv_heads=2, keep={keep})] }}")
    graph = graph_of_project(project, "m")
    assert graph is not None, [item.message for item in project.diagnostics]
    return graph
