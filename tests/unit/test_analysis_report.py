"""Costs of models: parameters, forward FLOPs and cache bytes, and the table of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixerlang.analysis import analyze, table
from mixerlang.analysis.table import binary, si
from mixerlang.ir.graph import Graph
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "specs/paper"
SPECS = sorted((ROOT / "specs").rglob("*.mix"))

MILLIONS = {
    "400m": {"gdn": "367.0", "swa": "354.0", "full": "354.0", "lalte": "360.2", "lansa": "358.4",
             "transformer": "341.1", "nsa": "349.8"},
    "1400m": {"gdn": "1466", "swa": "1340", "full": "1340", "lalte": "1343", "lansa": "1323",
              "transformer": "1213", "nsa": "1180"},
}
"""Parameters of the paper's models, in millions, from the reference's shapes."""


def graph_of(path: Path) -> Graph:
    graph, diagnostics = build_graph(path)
    assert graph is not None, [item.message for item in diagnostics]
    return graph


def graph_of_text(folder: Path, text: str) -> Graph:
    path = folder / "a.mix"
    path.write_text(text)
    return graph_of(path)


@pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size, names in MILLIONS.items() for name in names]
)
def test_parameters_of_the_paper(size: str, name: str) -> None:
    digits = 1 if size == "400m" else 0
    parameters = analyze(graph_of(PAPER / f"{name}_{size}.mix")).total.parameters
    assert f"{parameters / 1e6:.{digits}f}" == MILLIONS[size][name]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_json_adds_up(path: Path) -> None:
    graph = graph_of(path)
    data = analyze(graph, batch=2, length=300).as_json()
    parts = [*data["layers"], *data["outside"].values()]
    assert data["parameters"] == sum(part["parameters"] for part in parts) == graph.parameters()
    assert data["cache_bytes"] == sum(part["cache_bytes"] for part in parts) > 0
    flops = [part["flops"]["forward"]["dense"] for part in parts]
    assert data["flops"]["forward"]["dense"] == sum(flops) > 0
    assert [layer["index"] for layer in data["layers"]] == list(range(len(graph.layers)))
    assert data["weight_bytes"] == 4 * data["parameters"]


def test_json_of_a_layer(tmp_path: Path) -> None:
    graph = graph_of_text(tmp_path, """\
model tiny {
  param h: int = 2
  vocab = 10; dim = 8; context = 16; dtype = bfloat16; ffn = mlp(hidden=16)
  layers = [
    attention(heads=h)
  ]
}
""")
    data = analyze(graph, batch=3).as_json()
    head = {"schema": 1, "model": "tiny", "params": {"h": 2}, "batch": 3, "length": 16,
            "dtype": "bfloat16"}
    assert {key: data[key] for key in head} == head
    tokens, linear = 3 * 16, 4 * 8 * 8 + 2 * 8 * 16
    scores = 2 * tokens * 16 * 8 * 2  # q . k and weights . v of every pair
    positions = 8 * 16 * 3
    assert data["layers"] == [{
        "index": 0,
        "label": "attention",
        "mixer": "attention",
        "parameters": linear + 2 * 8,
        "flops": {"forward": {"dense": 2 * tokens * linear + scores}},
        "cache_bytes": 2 * tokens * 2 * 8 + positions,
        "line": 5,
    }]
    assert list(data["outside"]) == ["embedding", "final_norm", "head"]
    assert data["outside"]["head"]["flops"]["forward"]["dense"] == 2 * tokens * 8 * 10


def test_shared_weights_count_once(tmp_path: Path) -> None:
    text = "model m {{ vocab = 9; dim = 8; context = 9; tie_embeddings = true; layers = {} }}"
    once = analyze(graph_of_text(tmp_path, text.format("[layer(attention(heads=2))]")))
    four = analyze(graph_of_text(tmp_path, text.format("[tied(layer(attention(heads=2)))] * 4")))
    assert four.total.parameters == once.total.parameters
    assert [layer.cost.parameters > 0 for layer in four.layers] == [True, False, False, False]
    assert four.total.cache_bytes == 4 * once.total.cache_bytes
    assert four.outside["head"].parameters == 0


def test_mixers_of_a_layer_are_listed(tmp_path: Path) -> None:
    graph = graph_of_text(tmp_path, "model m { vocab = 9; dim = 8; context = 9; layers = ["
                          "sum(attention(heads=2), convolution), layer(none)] }")
    assert [layer.mixer for layer in analyze(graph).layers] == ["attention + convolution", "none"]


def test_bounded_caches_stop_growing() -> None:
    lalte = graph_of(PAPER / "lalte_400m.mix")
    full = graph_of(PAPER / "full_400m.mix")
    sizes = [analyze(lalte, length=length).total.cache_bytes for length in (4096, 1 << 20)]
    assert sizes[0] == sizes[1]
    assert analyze(full, length=8192).total.cache_bytes > sizes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": 0}, "batch must be at least 1"), ({"length": -1}, "length must be at least 1"),
     ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16")],
)
def test_absurd_questions_are_refused(options: dict[str, object], message: str) -> None:
    graph = graph_of(ROOT / "specs/tiny/gdn.mix")
    with pytest.raises(ValueError, match=message):
        analyze(graph, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_table_fits(path: Path) -> None:
    lines = table(analyze(graph_of(path), batch=1024, length=1 << 24)).splitlines()
    assert max(map(len, lines)) <= 100


def test_table_has_a_row_per_kind_of_layer() -> None:
    lines = table(analyze(graph_of(PAPER / "lalte_400m.mix"))).splitlines()
    assert lines[0] == "lalte_400m with w=768, b=512"
    rows = {line.split()[0]: line.split() for line in lines[5:] if "─" not in line}
    assert list(rows) == ["gdn", "lte", "embedding", "final_norm", "head", "total"]
    assert rows["gdn"][1:4] == ["recurrence", "0,2,...,22", f"{12 * 13_924_496:,}"]
    assert rows["total"][1] == "360,246,144"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9_996, "10.0 k"), (123_456, "123 k"),
     (999_999, "1.00 M"), (3_850_000_000_000, "3.85 T"), (983 * 10**30, "983 Q"),
     (10**33, "1.00e+33")],
)
def test_powers_of_ten(number: int, text: str) -> None:
    assert si(number) == text


def test_powers_of_two() -> None:
    assert [binary(n) for n in (0, 1023, 1536, 5 << 30)] == [
        "0 B", "1.00 KiB", "1.50 KiB", "5.00 GiB",
    ]
    assert binary(1 << 100) == "1.27e+30"


def test_no_number_of_the_table_is_cut() -> None:
    lines = table(analyze(graph_of(PAPER / "lalte_1400m.mix"), 10**9, 10**12)).splitlines()
    assert not any("…" in line for line in lines)
