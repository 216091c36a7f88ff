"""Costs of models: parameters, forward FLOPs and cache bytes, and the table of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mixerlang.analysis import METRICS, analyze, as_json, formula_lines, table
from mixerlang.analysis.units import binary, length_of, seconds, si, size_of
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
    data = as_json(analyze(graph, batch=2, length=300))
    parts = [*data["layers"], *data["outside"].values()]
    for key in METRICS:
        assert of(data, key) == sum(of(part, key) for part in parts) > 0, key
    assert data["parameters"] == graph.parameters()
    assert [layer["index"] for layer in data["layers"]] == list(range(len(graph.layers)))
    assert data["weight_bytes"] == 4 * data["parameters"]


def of(data: dict[str, Any], key: str) -> int:
    """The number at "flops.forward.dense"."""
    for name in key.split("."):
        data = data[name]
    assert isinstance(data, int)
    return data


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_expressions_are_the_numbers(path: Path) -> None:
    for batch, length in ((1, 1), (3, 700), (1, 5000)):
        data = as_json(analyze(graph_of(path), batch, length, backend="kernels"))
        names = {"B": batch, "T": length, "L": length}
        for key, found in data["expressions"]["total"].items():
            assert eval(found["expression"], dict(names)) == of(data, key)
            [own] = [each for each in found["regimes"]
                     if each["from"] <= length <= (each["to"] or length)]
            assert eval(own["expression"], dict(names)) == of(data, key)


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
    data = as_json(analyze(graph, batch=3))
    head = {"schema": 1, "model": "tiny", "params": {"h": 2}, "batch": 3, "length": 16,
            "dtype": "bfloat16"}
    assert {key: data[key] for key in head} == head
    tokens, linear = 3 * 16, 4 * 8 * 8 + 2 * 8 * 16
    scores = 2 * tokens * 16 * 8 * 2  # q . k and weights . v of every pair
    positions = 8 * 16 * 3
    dense = 2 * tokens * linear + scores
    useful = dense - 2 * 3 * (16 * 15 // 2) * 8 * 2
    block = 2 * 3 * 2 * 128 * 128 * 4  # of each product, in one block of PyTorch's own attention
    forward, backward = 2 * tokens * linear + 2 * block, 4 * tokens * linear + 5 * block
    passes = {name: data["layers"][0]["flops"][name] for name in ("forward", "backward")}
    assert passes == {
        name: {"useful": useful * times, "executed": blocks, "dense": dense * times}
        for name, times, blocks in (("forward", 1, forward), ("backward", 2, backward))
    }
    assert data["layers"][0].items() >= {
        "index": 0,
        "label": "attention",
        "mixer": "attention",
        "parameters": linear + 2 * 8,
        "cache_bytes": 2 * tokens * 2 * 8 + positions,
        "cache_bound_bytes": 2 * tokens * 2 * 8,
        "line": 5,
    }.items()
    assert list(data["outside"]) == ["embedding", "final_norm", "head"]
    assert data["outside"]["head"]["flops"]["forward"]["dense"] == 2 * tokens * 8 * 10


def test_what_the_data_decide_is_marked() -> None:
    """A learned eviction keeps what its scores say; a window does not ask."""
    data = as_json(analyze(graph_of(PAPER / "lalte_400m.mix")))
    marked = {(layer["label"], layer["useful_at_most"]) for layer in data["layers"]}
    assert marked == {("gdn", False), ("lte", True)}
    text = table(analyze(graph_of(PAPER / "lalte_400m.mix")))
    assert text.endswith("the data decide in lte")
    assert "decide" not in table(analyze(graph_of(PAPER / "swa_400m.mix")))


def test_shared_weights_count_once(tmp_path: Path) -> None:
    text = "model m {{ vocab = 9; dim = 8; context = 9; tie_embeddings = true; layers = {} }}"
    once = analyze(graph_of_text(tmp_path, text.format("[layer(attention(heads=2))]")))
    four = analyze(graph_of_text(tmp_path, text.format("[tied(layer(attention(heads=2)))] * 4")))
    assert four.total.parameters == once.total.parameters
    assert [layer.cost.parameters > 0 for layer in four.layers] == [True, False, False, False]
    assert four.total["cache_bytes"] == 4 * once.total.number("cache_bytes")
    assert four.outside["head"].parameters == 0


def test_mixers_of_a_layer_are_listed(tmp_path: Path) -> None:
    graph = graph_of_text(tmp_path, "model m { vocab = 9; dim = 8; context = 9; layers = ["
                          "sum(attention(heads=2), convolution), layer(none)] }")
    assert [layer.mixer for layer in analyze(graph).layers] == ["attention + convolution", "none"]


def test_bounded_caches_stop_growing() -> None:
    lalte = graph_of(PAPER / "lalte_400m.mix")
    full = graph_of(PAPER / "full_400m.mix")
    costs = [analyze(lalte, length=length).total for length in (4096, 1 << 20)]
    sizes = [cost.number("cache_bytes") for cost in costs]
    assert sizes[0] == sizes[1]
    assert analyze(full, length=8192).total.number("cache_bytes") > sizes[0]


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
    lines = table(analyze(graph_of(path), batch=1024, length=1 << 24), "useful").splitlines()
    assert max(map(len, lines)) <= 100


def test_table_has_a_row_per_kind_of_layer() -> None:
    lines = table(analyze(graph_of(PAPER / "lalte_400m.mix"))).splitlines()
    assert lines[0] == "lalte_400m with w=768, b=512"
    rows = {line.split()[0]: line.split() for line in lines[5:] if line and "─" not in line}
    assert list(rows) == ["gdn", "lte", "embedding", "final_norm", "head", "total", "FLOPs",
                          "useful", "executed", "dense"]
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


def test_times() -> None:
    assert [seconds(x) for x in (1e20, 4321.0, 2.5, 0.0123, 4.56e-5, 7e-9)] == [
        "1.00e+20 s", "4321 s", "2.50 s", "12.3 ms", "45.6 µs", "7.00 ns",
    ]


def test_sizes_and_lengths() -> None:
    assert [size_of(text) for text in ("80GiB", "24 GB", "1.5k", "7")] == [
        80 * 2**30, 24 * 10**9, 1500, 7,
    ]
    assert [length_of(text) for text in ("4096", "4k", "1M")] == [4096, 4096, 1 << 20]


@pytest.mark.parametrize("text", ["", "-4", "4 parsecs", "1e9", "0", "9" * 30, "١٢", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    for read in (size_of, length_of):
        with pytest.raises(ValueError, match=r"is no number|is not between"):
            read(text)


def test_formulas_tell_ranges_and_order() -> None:
    text = formula_lines(analyze(graph_of(PAPER / "lalte_400m.mix")), "useful")
    assert "lte (1,3,...,23, line 12)" in text
    assert "T ≤ 1,280: O(B·T²)" in text and "T ≥ 1,281: O(B·T)" in text
    assert "0 FLOPs" not in text


def test_analyzing_loads_neither_torch_nor_templates() -> None:
    code = (
        "import sys; from mixerlang.pipeline import build_graph; from mixerlang import analysis;"
        "graph, _ = build_graph('specs/paper/lalte_400m.mix'); found = analysis.analyze(graph);"
        "analysis.table(found); analysis.as_json(found, analysis.latency_on(found, 'h100'));"
        "print(sorted({'torch', 'triton', 'jinja2', 'numpy', 'networkx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
