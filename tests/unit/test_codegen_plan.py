"""From graphs to plans: classes of layers, names, statements, ties."""

from __future__ import annotations

import ast
import keyword
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.codegen.layer import LayerClass
from mixerlang.codegen.naming import attribute, class_name, enumerate_numbers, one_line
from mixerlang.codegen.plan import Plan, make_plan
from mixerlang.codegen.stack import Entry, Sharing, construction
from mixerlang.codegen.text import module_lines, sharing_lines, statement_lines
from mixerlang.ir.graph import Graph
from mixerlang.pipeline import build_graph

SPECS = Path(__file__).parents[2] / "specs"

HEAD = "vocab = 31; dim = 16; context = 64\n"
GDN = "gated_deltanet(2, head_dim=8)"


def graph_of(text: str, folder: Path) -> Graph:
    spec = folder / "spec.mix"
    spec.write_text(text)
    graph, diagnostics = build_graph(spec)
    assert graph is not None, list(diagnostics)
    return graph


def plan_of(layers: str, folder: Path, before: str = "") -> Plan:
    return make_plan(graph_of(f"{before}\nmodel m {{ {HEAD} {layers} }}", folder))


def forward(layer: LayerClass) -> list[str]:
    return [line.split("  #")[0].strip() for line in statement_lines(layer)]


def test_equal_layers_share_a_class() -> None:
    graph, _ = build_graph(SPECS / "paper" / "lalte_400m.mix")
    assert graph is not None
    plan = make_plan(graph)
    assert [layer.name for layer in plan.classes] == ["GdnLayer", "LteLayer"]
    assert plan.classes[0].indices == tuple(range(0, 24, 2))
    assert plan.classes[1].indices == tuple(range(1, 24, 2))
    inside = sum(layer.parameters * len(layer.indices) for layer in plan.classes)
    assert inside + 32_000 * 1024 + 1024 == graph.parameters()


def test_a_different_size_is_a_different_class(tmp_path: Path) -> None:
    plan = plan_of(
        "let a(w) = attention(2, keep=window(w)); layers = [a(4), a(5), a(4)]", tmp_path
    )
    assert [layer.indices for layer in plan.classes] == [(0, 2), (1,)]
    assert len({layer.name for layer in plan.classes}) == 2


@pytest.mark.parametrize("label", ["class", "none", "", "1", "a\nb", 'x"""; import os #', "é" * 99])
def test_hostile_labels_become_class_names(label: str, tmp_path: Path) -> None:
    graph = graph_of(f"model m {{ {HEAD} layers = [{GDN}, attention(2)] }}", tmp_path)
    graph.layers[:] = [replace(layer, label=label) for layer in graph.layers]
    names = [layer.name for layer in make_plan(graph).classes]
    assert len(set(names)) == 2
    assert all(name.isascii() and name.isidentifier() and len(name) < 60 for name in names)


@given(st.text(max_size=80), st.sets(st.sampled_from(["None", "True", "Model", "M", "Layer"])))
def test_any_text_gives_a_legal_new_name(text: str, taken: set[str]) -> None:
    for name in (class_name(text, "", taken), class_name(text, "Layer", taken)):
        assert name.isascii() and name.isidentifier()
        assert name not in taken and not keyword.iskeyword(name)
    own = attribute(text)
    assert own.isascii() and own.isidentifier() and not keyword.iskeyword(own)


@given(st.text())
def test_comments_stay_on_their_line(text: str) -> None:
    comment = one_line(text)
    assert comment.isprintable() and len(comment.splitlines()) <= 1
    assert not ast.parse(f"# {comment}\n").body


def test_statements_of_the_usual_blocks(tmp_path: Path) -> None:
    mix = 'h = self.mixer(h, context.child("mixer"))'
    wanted = {
        "prenorm": ["h = self.norm1(x)", mix, "x = x + h",
                    "h = self.norm2(x)", "x = self.ffn(h, residual=x)"],
        "postnorm": ['h = self.mixer(x, context.child("mixer"))', "x = x + h", "x = self.norm1(x)",
                     "x = self.ffn(x, residual=x)", "x = self.norm2(x)"],
        "parallel": ["h = self.norm1(x)", 'h1 = self.mixer(h, context.child("mixer"))',
                     "h = self.ffn(h, residual=h1)", "x = x + h"],
    }  # fmt: skip
    for block, lines in wanted.items():
        plan = plan_of(f"block = {block}; layers = [{GDN}] * 2", tmp_path)
        assert len(plan.classes) == 1
        assert forward(plan.classes[0]) == lines
        assert plan.classes[0].result == "x"


def test_a_result_that_others_read_is_added_apart(tmp_path: Path) -> None:
    """What takes a residual gets it where nobody else reads what it would give without."""
    block = """block odd(mixer, ffn) {
      h = mixer(x); x = x + h; h = x * h; x = h + ffn(x)
    }"""
    plan = plan_of("block = odd; layers = [attention(2)]", tmp_path, block)
    assert forward(plan.classes[0]) == [
        'h = self.mixer(x, context.child("mixer"))', "x = x + h", "h = x * h",
        "x = self.ffn(x, residual=h)",
    ]  # fmt: skip
    plan = plan_of("layers = [attention(2)]", tmp_path)
    assert 'x = self.mixer(h, context.child("mixer"), residual=x)' in forward(plan.classes[0])


def test_operators_are_written_out(tmp_path: Path) -> None:
    block = """block odd(mixer, ffn) {
      h = concat(x, mixer(x)); h = linear(h, out=16)
      x = 0.5 * x + silu(h) * h
    }"""
    plan = plan_of(f"block = odd; layers = [{GDN}]", tmp_path, block)
    lines = forward(plan.classes[0])
    assert "h = torch.cat((x, h), dim=-1)" in lines
    assert any("0.5 * x" in line for line in lines)
    assert any("F.silu(h)" in line for line in lines)
    assert [module.name for module in plan.classes[0].modules] == ["mixer", "linear1"]


def test_a_first_layer_on_x0_shares_the_class_of_the_others(tmp_path: Path) -> None:
    block = "block skip(mixer, ffn) { x += mixer(norm(x + 0.1 * x0)); x += ffn(norm(x)) }"
    plan = plan_of(f"block = skip; layers = [{GDN}] * 4", tmp_path, block)
    assert [layer.indices for layer in plan.classes] == [(0, 1, 2, 3)]
    assert plan.passes_x0
    assert any("0.1 * x0" in line for line in forward(plan.classes[0]))


def test_ties(tmp_path: Path) -> None:
    plan = plan_of(
        f"let whole = tied(layer({GDN})); let part = tied(attention(2))\n"
        "layers = [whole, part, attention(2), whole, part, whole, part]",
        tmp_path,
    )
    assert [entry.owner for entry in plan.entries] == [None, None, None, 0, None, 0, None]
    (sharing,) = plan.sharings
    assert (sharing.owner, sharing.owner_name, sharing.name) == (1, "mixer", "mixer")
    assert sharing.layers == (4, 6)


def test_a_mixer_tied_inside_its_layer(tmp_path: Path) -> None:
    plan = plan_of(f"let t = tied({GDN}); layers = [sum(t, t >> t)] * 2", tmp_path)
    (layer,) = plan.classes
    assert [module.alias for module in layer.modules if "mixer" in module.name] == [
        None, "mixer1", "mixer1"
    ]  # fmt: skip
    assert "self.mixer2 = self.mixer1  # tied" in module_lines(layer.modules[2])
    assert [(s.name, s.owner, s.owner_name, s.layers) for s in plan.sharings] == [
        (f"mixer{number}", 0, "mixer1", (1,)) for number in (1, 2, 3)
    ]


@given(st.lists(st.sampled_from("ABC"), max_size=40))
def test_the_list_of_layers_reads_back(names: list[str]) -> None:
    """What `construction` writes builds the same classes in the same order."""
    code = "\n".join(construction(tuple(Entry(name) for name in names), 0))
    assert built(code) == names


@given(st.lists(st.sampled_from("AB"), min_size=2, max_size=30), st.data())
def test_shared_layers_read_back(names: list[str], data: st.DataObject) -> None:
    entries = [Entry(names[0])]
    for place, name in enumerate(names[1:], 1):
        owners = [i for i in range(place) if entries[i] == Entry(name)]
        choice = data.draw(st.sampled_from([None, *owners]))
        entries.append(Entry(name, choice))
    layers = built("\n".join(construction(tuple(entries), 0)), keep=True)
    for place, entry in enumerate(entries):
        same = [i for i, other in enumerate(layers) if other is layers[place]]
        owner = place if entry.owner is None else entry.owner
        assert min(same) == owner and type(layers[place]).__name__ == entry.class_name


def built(code: str, keep: bool = False) -> list[object]:
    class Lists:
        ModuleList = staticmethod(lambda items=(): list(items))

    class Me:
        layers: list[object]

    names: dict[str, object] = {name: type(name, (), {}) for name in "ABC"}
    exec(code, names | {"nn": Lists, "self": Me})
    return Me.layers if keep else [type(layer).__name__ for layer in Me.layers]


def test_numbers_in_few_words() -> None:
    assert enumerate_numbers([3]) == "3"
    assert enumerate_numbers([0, 1, 2]) == "0, 1, 2"
    assert enumerate_numbers(range(6)) == "0-5"
    assert enumerate_numbers(range(0, 24, 2)) == "0, 2, ..., 22"


@pytest.mark.parametrize(
    ("layers", "head"),
    [
        ((2, 4, 6), "for index in range(2, 7, 2):"),
        ((2, 3), "for index in (2, 3):"),
        ((4,), "self.layers[4].mixer = self.layers[1].norm1  # tied"),
    ],
)
def test_which_layers_share_a_module(layers: tuple[int, ...], head: str) -> None:
    assert sharing_lines(Sharing(1, "norm1", "mixer", layers)).splitlines()[0].strip() == head


def test_many_sharing_layers_take_several_lines() -> None:
    model = SimpleNamespace(layers=[SimpleNamespace(norm1=place) for place in range(400)])
    some = tuple(place for place in range(2, 400) if place % 3)
    text = sharing_lines(Sharing(1, "norm1", "norm1", some))
    assert max(map(len, text.splitlines())) <= 100
    exec(textwrap.dedent(text), {"self": model})
    assert [place for place in range(400) if model.layers[place].norm1 == 1] == [1, *some]
