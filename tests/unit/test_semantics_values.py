"""What expressions mean: numbers, lists, functions, names, and when they are evaluated."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from mixerlang.ir.graph import Graph
from mixerlang.pipeline import graph_of
from mixerlang.primitives import Term
from mixerlang.primitives import keep as k
from mixerlang.primitives import recurrence as r
from mixerlang.primitives.attention import Attention
from mixerlang.primitives.ffn import Ffn
from mixerlang.semantics import open_text, registry
from mixerlang.semantics.arithmetic import Rejected, bounded
from mixerlang.semantics.expect import fields_of, of_annotation
from mixerlang.semantics.registry import constructors

FIELDS = "vocab = 256; dim = 128; context = 256"


def graph(layers: str, definitions: str = "", items: str = "") -> Graph:
    text = f"{definitions}\nmodel m {{\n{FIELDS}\n{items}\nlayers = {layers}\n}}"
    project = open_text(text)
    found = graph_of(project, "m")
    assert found is not None, [(d.code, d.message, str(d.span)) for d in project.diagnostics]
    return found


def kinds(layers: str, definitions: str = "", items: str = "") -> str:
    """The labels of all layers, one letter each."""
    return "".join(layer.label[0] for layer in graph(layers, definitions, items).layers)


def op(term: str, definitions: str = "") -> Any:
    """The mixer of a model with one layer."""
    return graph(f"[{term}]", definitions)["layers.0.mixer"].op


def keep(text: str, definitions: str = "") -> k.Keep:
    mixer = op(f"attention(4, keep={text})", definitions)
    assert isinstance(mixer, Attention)
    return mixer.keep


AB = "let a = attention(4)\nlet b = local(4, 8)\nlet c = convolution(4)\n"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("[a, b]", "ab"),
        ("[a, b] * 3", "ababab"),
        ("3 * [a]", "aaa"),
        ("[a] * 3 + [b]", "aaab"),
        ("([a] * 3 + [b]) * 2", "aaabaaab"),
        ("[a] + [b] * 2 + [c]", "abbc"),
        ("[] + [a] * 0 + [b]", "b"),
        ("[a] * (7 // 2)", "aaa"),
        ("[a] * (6 / 2) + [\n b,\n]", "aaab"),
        ("-1 * -2 * [a]", "aa"),
    ],
)
def test_list_algebra(layers: str, expected: str) -> None:
    assert kinds(layers, AB) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("layers[0] = b", "baaaaa"),
        ("layers[-1] = b", "aaaaab"),
        ("layers[0, -1] = b", "baaaab"),
        ("layers[::2] = b", "bababa"),
        ("layers[1::2] = b", "ababab"),
        ("layers[:2] = b", "bbaaaa"),
        ("layers[2:4] = b", "aabbaa"),
        ("layers[-2:] = b", "aaaabb"),
        ("layers[4:0:-2] = b", "aababa"),
        ("layers[::-1] = b", "bbbbbb"),
        ("layers[2:100] = b", "aabbbb"),
        ("layers[1, 3:5, -1] = b", "ababbb"),
        ("layers[::2] = b; layers[0] = c", "cababa"),
        ("layers[n / 3] = b; layers[3 - n] = c", "aabcaa"),
    ],
)
def test_exceptions(overrides: str, expected: str) -> None:
    assert kinds("[a] * n", AB, f"let n = 6\n{overrides}") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("7 // 2", 3), ("-7 // 2 + 5", 1), ("6 / 2", 3),
        ("1_000 - 1", 999), ("8/3 * 3", 8), ("0.1 * 10", 1), ("1e2", 100), ("10 - 2 - 3", 5),
        ("64 / 4 / 2", 8), ("2 * -3 + 10", 4), ("1.5 * 2", 3),
    ],
)
def test_exact_arithmetic(value: str, expected: int) -> None:
    assert keep("window(n)", f"let n = {value}") == k.Window(size=expected)


@pytest.mark.parametrize("value", [2**63, -(2**63), Fraction(2) ** 1000, Fraction(1, 3**3000)])
def test_numbers_are_bounded(value: int | Fraction) -> None:
    with pytest.raises(Rejected) as caught:
        bounded(value)
    assert caught.value.code == "MX013"


def test_ratios_are_exact() -> None:
    ffn = graph("[attention(4)]", items="ffn = swiglu(8/3, 1)")["layers.0.ffn"].op
    assert isinstance(ffn, Ffn) and ffn.hidden == 342


# ------------------------------------------------------------------------------------ functions


def test_arguments_are_evaluated_when_needed() -> None:
    """The second argument has no value, and no need of one."""
    assert kinds("[first(a, 1/0)]", AB + "let first(x, y) = x") == "a"


def test_defaults_see_other_parameters() -> None:
    mixer = op("f(8)", "mixer f(h, kv: int = h / 2, d = 2 * kv) = attention(h, kv, head_dim=d)")
    assert mixer.shape() == (8, 4, 8, 8)


def test_parameters_are_lexical() -> None:
    definitions = "let w = 8\nlet near(h) = attention(h, keep=window(w))\nmixer f(w) = near(w)"
    assert op("f(4)", definitions).keep == k.Window(size=8)


def test_functions_take_functions() -> None:
    definitions = "let twice(f, x) = f(f(x))\nlet inc(x) = x + 1"
    assert op("attention(twice(inc, 2))", definitions).heads == 4


def test_one_argument_serves_two_types() -> None:
    definitions = "mixer f(x) = attention(x, keep=window(x))"
    assert op("f(4)", definitions).keep == k.Window(size=4)


def test_lets_may_be_used_before_their_definition() -> None:
    assert kinds("[d]", "let d = e\nlet e = attention(4)") == "d"


def test_functions_return_lists() -> None:
    assert kinds("stage(2) + stage(1)", AB + "let stage(n) = [a, b] * n + [c]") == "ababcabc"


# ---------------------------------------------------------------- names with several meanings


def test_gated() -> None:
    assert isinstance(keep("gated(full, window(8))"), k.GatedKeep)
    mixed = graph("[gated(attention(4), local(4, 8))]")
    assert [node.name for node in mixed if node.layer == 0][:4] == [
        "norm1", "mixer1", "mixer2", "gated_sum1"]


def test_gated_by_its_use() -> None:
    definitions = "let near = window(8)\nlet both = gated(full, near)"
    assert isinstance(keep("both", definitions), k.GatedKeep)


def test_mean() -> None:
    compressed = keep("compressed(16, map=mean)")
    assert isinstance(compressed, k.Compressed) and isinstance(compressed.map, k.MeanMap)
    blocks = keep("blocks(16, top=4, score=mean)")
    assert isinstance(blocks, k.Blocks) and blocks.score == "mean"
    names = [node.name for node in graph("[mean(attention(4), local(4, 8))]") if node.layer == 0]
    assert names[:5] == ["norm1", "mixer1", "mixer2", "add1", "scale_by1"]


def test_mlp() -> None:
    compressed = keep("compressed(16, map=mlp(2))")
    assert isinstance(compressed, k.Compressed) and compressed.map == k.MlpMap(expand=2)
    ffn = graph("[layer(attention(4), ffn=mlp(relu2, 2))]")["layers.0.ffn"].op
    assert isinstance(ffn, Ffn) and ffn.hidden == 256


def test_concat() -> None:
    mixed = graph("[concat(attention(4), local(4, 8))]")
    assert "concat1" in [node.name for node in mixed]
    block = "block b(mixer, ffn) { h = concat(mixer(x), x0); x += linear(h, out=128) }"
    assert graph("[attention(4)]", block, "block = b")["layers.0.concat1"].type.width == 256


def test_none() -> None:
    mixer = op("attention(4, position=none, qk_norm=none)")
    assert mixer.position is None and mixer.qk_norm is None
    assert isinstance(op("recurrence(4, decay=none)").decay, r.NoDecay)
    assert isinstance(op("recurrence(4, output=none)").output, r.PlainOutput)
    assert op("recurrence(4, normalizer=none)").normalizer == "none"
    assert graph("[attention(4)]", items="norm = none; ffn = none; final_norm = none").layers[
        0].nodes == ("layers.0.mixer", "layers.0.add1")


def test_words_come_before_definitions() -> None:
    definitions = "let norm = 3\nlet random = 4\nlet mean = 5"
    evict = keep("window(8) | evict(policy=norm, budget=norm)", definitions)
    assert isinstance(evict, k.Union) and evict.parts[1] == k.Evict(policy="norm", budget=3)


def test_words_are_values() -> None:
    definitions = "let p = h2o\nmixer f(policy) = attention(4, keep=window(8) | evict(policy, 8))"
    for argument in ("p", "h2o", "policy=p"):
        assert op(f"f({argument})", definitions).keep.parts[1].policy == "h2o"


def test_a_definition_of_another_type_hides_nothing() -> None:
    assert keep("window(8)", "let full = 8\nlet window_ = full") == k.Window(size=8)
    assert keep("full", "let full = 8") == k.Full()
    assert keep("full", "let full = window(full_)\nlet full_ = 8") == k.Window(size=8)


def test_own_definitions_win_over_provided_ones() -> None:
    assert op("local(4)", "mixer local(h) = attention(h, keep=window(3))").keep == k.Window(size=3)
    own = "block prenorm(mixer, ffn) { x += mixer(x) }"
    assert graph("[attention(4)]", own).layers[0].nodes == ("layers.0.mixer", "layers.0.add1")


def test_keeps_are_flat() -> None:
    union = keep("window(8) | sinks(2) | strided(4)")
    assert isinstance(union, k.Union) and len(union.parts) == 3
    both = keep("full & window(8) | sinks(2)")
    assert isinstance(both, k.Union) and isinstance(both.parts[0], k.Intersection)


def test_features_compose() -> None:
    features = op("recurrence(4, features=silu >> l2norm >> elu1)").features
    assert isinstance(features, r.Compose)
    assert [type(part).word for part in features.parts] == ["silu", "l2norm", "elu1"]


# ------------------------------------------------------------------------------------ the terms


@pytest.mark.parametrize("word", sorted(constructors()))
def test_every_field_is_described(word: str) -> None:
    """Types, bounds and documentation of all constructors can be read off their fields."""
    for term in constructors()[word].values():
        assert issubclass(term, Term)
        for name, expect in fields_of(term).items():
            assert expect.describe()
            if name not in registry.preset(word, term):
                assert term.model_fields[name].description, (word, name)


def test_expectations_of_annotations() -> None:
    assert of_annotation(int).describe() == "an integer"
    assert of_annotation(bool).describe() == "true or false"
    assert of_annotation(k.Keep | None).describe() == "a keep or none"
    assert of_annotation(tuple[float, ...]).describe() == "a list (a number each)"
