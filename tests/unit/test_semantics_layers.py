"""Layers as dataflow: blocks, none, ties, combinators, labels, warnings, the prelude."""

from __future__ import annotations

import pytest

from mixerlang.ir.graph import Graph
from mixerlang.pipeline import graph_of
from mixerlang.primitives.attention import Attention
from mixerlang.primitives.pointwise import GatedSum, ScaleBy, WeightedSum
from mixerlang.semantics import open_text
from mixerlang.semantics.files import prelude
from mixerlang.syntax import ast

FIELDS = "vocab = 256; dim = 128; context = 256"


def told(layers: str, definitions: str = "", items: str = "") -> tuple[Graph | None, list[str]]:
    text = f"{definitions}\nmodel m {{\n{FIELDS}\n{items}\nlayers = {layers}\n}}"
    project = open_text(text)
    found = graph_of(project, "m")
    return found, [item.code for item in project.diagnostics]


def graph(layers: str, definitions: str = "", items: str = "") -> Graph:
    found, codes = told(layers, definitions, items)
    assert found is not None, codes
    return found


def steps(layers: str, definitions: str = "", items: str = "", layer: int = 0) -> str:
    """The dataflow of a layer: `norm1(x) mixer(norm1) add1(x mixer)`."""
    found = graph(layers, definitions, items)
    info = found.layers[layer]

    def name(id: str) -> str:
        return "x" if id == info.input else "x0" if id == "embedding" else found[id].name

    return " ".join(
        f"{found[id].name}({' '.join(name(node.id) for node in found.inputs(id))})"
        for id in info.nodes
    )


PRENORM = "norm1(x) mixer(norm1) add1(x mixer) norm2(add1) ffn(norm2) add2(add1 ffn)"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("prenorm", PRENORM),
        ("postnorm", "mixer(x) add1(x mixer) norm1(add1) ffn(norm1) add2(norm1 ffn) norm2(add2)"),
        ("sandwich", "norm1(x) mixer(norm1) norm2(mixer) add1(x norm2) "
                     "norm3(add1) ffn(norm3) norm4(ffn) add2(add1 norm4)"),
        ("parallel", "norm1(x) mixer(norm1) ffn(norm1) add1(mixer ffn) add2(x add1)"),
    ],
)
def test_provided_blocks(block: str, expected: str) -> None:
    assert steps("[attention(4)]", items=f"block = {block}") == expected
    assert steps(f"[layer(attention(4), block={block})]") == expected


def test_the_default_block_is_prenorm() -> None:
    assert steps("[attention(4)]") == PRENORM


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("none", "norm1(x) ffn(norm1) add1(x ffn)"),
        ("layer(none, ffn=mlp(relu2))", "norm1(x) ffn(norm1) add1(x ffn)"),
        ("layer(a, ffn=none)", "norm1(x) mixer(norm1) add1(x mixer)"),
        ("layer(a, norm=none)", "mixer(x) add1(x mixer) ffn(add1) add2(add1 ffn)"),
        ("layer(none, ffn=none)", ""),
        ("sum(a, none)", PRENORM),
        ("mean(none, none)", "norm1(x) ffn(norm1) add1(x ffn)"),
        ("a >> sum(none)", "norm1(x) ffn(norm1) add1(x ffn)"),
        ("layer(none, block=sandwich)", "norm1(x) ffn(norm1) norm2(ffn) add1(x norm2)"),
        ("layer(none, block=parallel)", "norm1(x) ffn(norm1) add1(x ffn)"),
    ],
)
def test_none_is_zero(layer: str, expected: str) -> None:
    assert steps(f"[{layer}, a]", "let a = attention(4)") == expected


def test_zero_in_a_block() -> None:
    block = """block b(mixer, ffn) {
      h = gate(none) + none
      y = norm(h) * mixer(x)
      x += 0 * mixer(x) + concat(y, h)
      x += concat(x0, none)
    }"""
    assert steps("[attention(4)] * 2", block, "block = b", 1) == "concat1(x0) add1(x concat1)"


def test_what_no_output_needs_is_not_there() -> None:
    block = "block b(mixer, ffn) { h = ffn(x); x += mixer(x) }"
    assert steps("[attention(4)]", block, "block = b") == "mixer(x) add1(x mixer)"


def test_operators_of_a_block() -> None:
    block = "block b(mixer, ffn) { h = silu(x0) * gate(x); x += 0.5 * h + h * 1 + -1 * mixer(h) }"
    found = graph("[attention(4)]", block, "block = b")
    assert steps("[attention(4)] * 2", block, "block = b", 1) == (
        "activation1(x0) gate1(x) multiply1(activation1 gate1) mixer(multiply1) scale_by1(mixer) "
        "scale_by2(multiply1) add1(scale_by2 multiply1) add2(add1 scale_by1) add3(x add2)"
    )
    scales = [node.op.factor for node in found if isinstance(node.op, ScaleBy)]
    assert scales == [-1.0, 0.5]


def test_functions_in_blocks() -> None:
    definitions = """let twice(s) = s + gate(s)
    let same(s) = s
    block b(mixer, ffn) { h = same(twice(norm(x))); x += mixer(h) }"""
    assert steps("[attention(4)]", definitions, "block = b") == (
        "norm1(x) gate1(norm1) add1(norm1 gate1) mixer(add1) add2(x mixer)")


def test_block_parameters() -> None:
    block = """block scaled(mixer, ffn, alpha, beta: number = 2 * alpha in 0..4) {
      x += alpha * mixer(x); x += beta * ffn(x)
    }"""
    found = graph("[a, layer(a, block=scaled(0.5, 1/2))]", block + "\nlet a = attention(4)",
                  "block = scaled(alpha=1/4)")
    factors = {node.id: node.op.factor for node in found if isinstance(node.op, ScaleBy)}
    assert factors == {
        "layers.0.scale_by1": 0.25, "layers.0.scale_by2": 0.5,
        "layers.1.scale_by1": 0.5, "layers.1.scale_by2": 0.5,
    }
    assert told("[attention(4)]", block, "block = scaled(3)")[1] == ["MX302"]


# ---------------------------------------------------------------------------------------- ties


def owners(layers: str, definitions: str) -> list[str]:
    """Whose weights the mixers use."""
    found = graph(layers, definitions)
    return [node.weights for node in found if "mixer" in node.name]


def test_a_tied_name_is_one_instance() -> None:
    assert owners("[t, a, t]", "let a = attention(4)\nlet t = tied(a)") == [
        "layers.0.mixer", "layers.1.mixer", "layers.0.mixer"]


def test_each_evaluation_of_tied_is_one_instance() -> None:
    a = "let a = attention(4)\nlet f(x) = tied(x)\nlet both(x) = [x, x]"
    assert owners("[tied(a), tied(a)]", a) == ["layers.0.mixer", "layers.1.mixer"]
    assert owners("[tied(a)] * 2", a) == ["layers.0.mixer", "layers.0.mixer"]
    assert owners("[f(a), f(a)]", a) == ["layers.0.mixer", "layers.1.mixer"]
    assert owners("[f(a)] * 2", a) == ["layers.0.mixer", "layers.0.mixer"]
    assert owners("both(tied(a))", a) == ["layers.0.mixer", "layers.0.mixer"]


def test_tied_ties_what_it_wraps() -> None:
    """A tied mixer leaves norms and ffns free, a tied layer does not."""
    mixer = graph("[tied(attention(4))] * 2")
    assert [node.id for node in mixer if node.weights != node.id] == ["layers.1.mixer"]
    layer = graph("[tied(layer(attention(4)))] * 2")
    free = [node.id for node in layer if node.layer == 1 and node.weights == node.id]
    assert free == []
    assert layer.parameters() < mixer.parameters() < graph("[attention(4)] * 2").parameters()


def test_a_tied_mixer_in_other_places() -> None:
    """One instance seen as a mixer, in a layer, in a chain and in a sum is still one instance."""
    definitions = "let t = tied(attention(4))"
    layers = "[t, layer(t, ffn=none), sum(t, convolution(4)), t >> t, tied(layer(t))]"
    found = graph(layers, definitions)
    used = {node.weights for node in found if isinstance(node.op, Attention)}
    assert used == {"layers.0.mixer"}


def test_a_tied_combination() -> None:
    found = graph("[tied(sum(attention(4), local(4, 8)))] * 2")
    assert [node.weights for node in found if isinstance(node.op, Attention)] == [
        "layers.0.mixer1", "layers.0.mixer2"] * 2


def test_a_mixer_used_twice_in_a_block_has_two_sets_of_weights() -> None:
    block = "block b(mixer, ffn) { x += mixer(x); x += mixer(x) }"
    found = graph("[attention(4), layer(tied(attention(4)), block=b)]", block, "block = b")
    assert [node.weights for node in found if isinstance(node.op, Attention)] == [
        "layers.0.mixer1", "layers.0.mixer2", "layers.1.mixer1", "layers.1.mixer1"]


# --------------------------------------------------------------------------------- combinators


def test_weights_of_sums() -> None:
    a = "let a = attention(4)"
    assert "scale_by" not in steps("[sum(a, a)]", a)
    halves = graph("[mean(a, a)]", a)
    assert [n.op.factor for n in halves if isinstance(n.op, ScaleBy)] == [0.5]
    fixed = graph("[sum(a, a, weights=[1, 1/4])]", a)
    assert [n.op.factor for n in fixed if isinstance(n.op, ScaleBy)] == [0.25]
    learned = graph("[mean(a, a, weights=[1, 3], learned=true)]", a)
    assert [n.op.init for n in learned if isinstance(n.op, WeightedSum)] == [(0.25, 0.75)]
    gated = graph("[gated(a, a, a)]", a)
    assert [n.op.streams for n in gated if isinstance(n.op, GatedSum)] == [3]


def test_chains_and_concat() -> None:
    a = "let a = attention(4)\nlet b = local(4, 8)"
    mixing = "norm1(x) mixer1(norm1) mixer2({}) {}add1(x {}) "
    rest = "norm2(add1) ffn(norm2) add2(add1 ffn)"
    assert steps("[a >> b]", a) == mixing.format("mixer1", "", "mixer2") + rest
    assert steps("[concat(a, b)]", a) == mixing.format(
        "norm1", "concat1(mixer1 mixer2) linear1(concat1) ", "linear1") + rest


# -------------------------------------------------------------------------------- labels, order


def test_labels() -> None:
    definitions = """let far = attention(4)
    mixer pair(h) = mean(local(h, 8), attention(h))
    let shared = tied(far)
    block b(mixer, ffn) { x += mixer(x) }"""
    first = "[far, local(4, 8), pair(4), attention(4)]"
    found = graph(first + " + [shared, tied(far), layer(far, block=b), none]", definitions)
    assert [layer.label for layer in found.layers] == [
        "far", "local", "pair", "attention", "shared", "far", "far", "none"]


def test_lines_of_the_spec() -> None:
    found = graph("[far, local(4, 8)]", "let far = attention(4)")
    spans = [layer.span for layer in found.layers]
    assert [span.text for span in spans if span] == ["attention(4)", "local(4, 8)"]
    mixer = found["layers.1.mixer"].span
    assert mixer is not None and mixer.text == "local(4, 8)"


def test_layers_written_alike_share_ops() -> None:
    found = graph("[attention(4)] * 3")
    assert len({id(node.op) for node in found if isinstance(node.op, Attention)}) == 1


# ------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("layers", "items", "codes"),
    [
        ("[attention(4)]", "let a = 3", ["MX210"]),
        ("[attention(4)]", "param a: int = 3", ["MX408"]),
        ("[attention(b)]", "param a: int = 3\nlet b = a + 1", []),
        ("[attention(4)]", "param a: int = 3\nlet b = a + 1", ["MX408", "MX210"]),
        ("[local(4, 257)]", "", ["MX406"]),
        ("[local(4, 257)] * 3", "", ["MX406"]),
        ("[local(4, 256), streaming(4, 8)]", "", []),
    ],
)
def test_warnings(layers: str, items: str, codes: list[str]) -> None:
    found, warnings = told(layers, items=items)
    assert found is not None and sorted(warnings) == sorted(codes)


def test_beside_errors_nothing_is_called_unused() -> None:
    assert told("[atention(4)]", items="let a = 3")[1] == ["MX201"]
    assert told("[attention(4)]", items="let a = 3; dropout = 2")[1] == ["MX302"]


# -------------------------------------------------------------------------------------- prelude

CALLS = {
    "local": "4, 8", "streaming": "4, 8", "lte": "4, 16, 8", "moba": "4, 16, 3",
    "nsa": "4, 2, recent=64", "nsa_learned": "4, 2, recent=64", "gla": "4, 16, 32",
    "mamba2": "4, 16, 16",
}
"""Arguments of provided mixers that take more than heads and a head_dim."""

MIXERS = [s.name.id for file in prelude() for s in file.statements if isinstance(s, ast.MixerDef)]
BLOCKS = [s.name.id for file in prelude() for s in file.statements if isinstance(s, ast.BlockDef)]


@pytest.mark.parametrize("name", MIXERS)
def test_every_provided_mixer_expands(name: str) -> None:
    call = f"{name}({CALLS.get(name, '4, 32')})"
    found, codes = told(f"[{call}, layer(tied({call}), ffn=none)] * 2")
    assert found is not None and codes == []
    assert found.layers[0].label == name
    assert found.parameters() > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_every_provided_block_expands(name: str) -> None:
    found, codes = told("[attention(4)]", items=f"block = {name}")
    assert found is not None and codes == []
