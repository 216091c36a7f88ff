"""One layout: nothing lost, nothing changed in meaning, and nothing left to change."""

import dataclasses
import textwrap
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixerlang.diagnostics import Diagnostics
from mixerlang.source import Source
from mixerlang.syntax import format_source, parse
from mixerlang.syntax.tokens import tokenize

# The machine may be busy: hypothesis is not to judge our speed.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fmt(text: str) -> str:
    formatted, diagnostics = format_source(Source("a.mix", text))
    assert formatted is not None, [d.message for d in diagnostics]
    return formatted


def meaning(node: object) -> object:
    """A tree without its spans."""
    if dataclasses.is_dataclass(node):
        fields = [f.name for f in dataclasses.fields(node) if f.name != "span"]
        return type(node).__name__, [meaning(getattr(node, name)) for name in fields]
    return [meaning(part) for part in node] if isinstance(node, tuple) else node


def kept(text: str) -> Counter[str]:
    """What a formatter must not lose: words and comments, though not their commas and ends."""
    tokens = tokenize(Source("a.mix", text), Diagnostics())
    return Counter(t.text.rstrip() for t in tokens if t.kind not in {"SPACE", "_END", "COMMA"})


def check(text: str) -> None:
    file, diagnostics = parse(Source("a.mix", text))
    if diagnostics.errors:
        assert format_source(Source("a.mix", text))[0] is None
        return
    once = fmt(text)
    assert fmt(once) == once
    assert meaning(parse(Source("a.mix", once))[0]) == meaning(file)
    assert kept(once) == kept(text)
    assert all(line == line.rstrip() for line in once.split("\n"))
    assert not once or (once.endswith("\n") and not once.endswith("\n\n"))


EXAMPLES = {
    "spaces": (
        "let  f( a,b :int=3 in 1 .. 9 ,c = - 1 )=a*-b//2>>[ a ,b|c ]&- d . T",
        "let f(a, b: int = 3 in 1..9, c=-1) = a * -b // 2 >> [a, b | c] & -d.T\n",
    ),
    "fractions": (
        "let a = f(x = 8 / 3, y=a/3, z = a / 8 / 3, w=8/3/2)",
        "let a = f(x=8/3, y=a / 3, z=a / 8 / 3, w=8/3 / 2)\n",
    ),
    "numbers": ("let a = 32_000+1E-6 + 3 .T", "let a = 32_000 + 1E-6 + 3 .T\n"),
    "slices": (
        "model m {\nx[ 0,-1 , : :4, a : b ]=f ( y )\n}",
        "model m {\n  x[0, -1, ::4, a:b] = f(y)\n}\n",
    ),
    "model": (
        "\n\nmodel m\n{\n a=1;b   = 2 # two\n\n\n\n# three\nparam w:int=1 in 1..2}\n\n\n",
        "model m {\n  a = 1\n  b = 2  # two\n\n  # three\n  param w: int = 1 in 1..2\n}\n",
    ),
    "empty": ("model m { }\nblock b(x) {\n}\n# end", "model m {}\nblock b(x) {}\n# end\n"),
    "block": (
        "block p(mixer,ffn)  { x+=mixer(norm(x));  x += ffn(x) ; }",
        "block p(mixer, ffn) { x += mixer(norm(x)); x += ffn(x) }\n",
    ),
    "long block": (
        "block p(a) { x += " + "a" * 50 + "(x); x += " + "b" * 50 + " }",
        "block p(a) {\n  x += " + "a" * 50 + "(x)\n  x += " + "b" * 50 + "\n}\n",
    ),
    "lines of a block": (
        "block p(a) {\nx += a(x); x += a(x)\n}",
        "block p(a) {\n  x += a(x)\n  x += a(x)\n}\n",
    ),
    "joined": ("let a = f(x,\n  y)\nlet b =\n  c |\n  d", "let a = f(x, y)\nlet b = c | d\n"),
    "kept open": (
        "let a = f(\nx, y)\nlet b = (\na)",
        "let a = f(\n  x,\n  y,\n)\nlet b = (\n  a\n)\n",
    ),
    "comments": (
        "#!\nlet a = f( # open\n  x # one\n , y, # two\n  # three\n) # four\n   # five",
        "#!\nlet a = f(  # open\n  x,  # one\n  y,  # two\n  # three\n)  # four\n# five\n",
    ),
    "comments within": (
        "let a = b + # one\n   # two\n c\nlet d = [a | # three\n b]",
        "let a = b +  # one\n  # two\n  c\nlet d = [\n  a |  # three\n    b,\n]\n",
    ),
    "braces": (
        "model m { # one\n\n  # two\n\n\n  # three\n\n}",
        "model m {  # one\n  # two\n\n  # three\n}\n",
    ),
    "crlf": ("\ufefflet a = 1 # c \r\n\r\n\r\nlet b = 2\t\r\n", "let a = 1  # c\n\nlet b = 2\n"),
    "nothing": (" \n;\n", ""),
    "strings": ('import   "a b#\\".mix" ;', 'import "a b#\\".mix"\n'),
}


@pytest.mark.parametrize("text, expected", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples(text: str, expected: str) -> None:
    assert fmt(text) == expected
    check(text)


def test_long_calls_are_wrapped() -> None:
    text = (
        "model m {\n  let lte = attention(heads=16, position=rope(theta=10_000), "
        "keep=window(w) | learned(budget=b, sinks=4))\n}"
    )
    expected = """\
        model m {
          let lte = attention(
            heads=16,
            position=rope(theta=10_000),
            keep=window(w) | learned(budget=b, sinks=4),
          )
        }
    """
    assert fmt(text) == textwrap.dedent(expected)
    assert fmt(text.replace("heads=16, ", "").replace("\n  let", "\nlet")).count("\n") == 3


def test_the_value_of_a_function_may_take_a_line_of_its_own() -> None:
    call = f"recurrence(heads=heads, output={'x' * 60})"
    head = "mixer gated_deltanet(heads, head_dim, expand_v=2)"
    assert fmt(f"{head} = {call}") == f"{head} =\n  {call}\n"
    assert max(map(len, fmt(f"{head} = {call[:-1]}, a=1, b=2, c=3)").splitlines())) < 100


@pytest.mark.parametrize("length", range(80, 104))
def test_width(length: int) -> None:
    text = "let x = f(aaaa, bbbb=[1, 2], c=(a | b))(y) | g(z)"
    text = text.replace("aaaa", "a" * (length - len(text) + 4))
    assert len(text) == length
    assert (fmt(text) == text + "\n") == (length <= 100)
    assert max(map(len, fmt(text).splitlines())) <= 100
    check(text)


def test_syntax_errors_are_not_formatted() -> None:
    formatted, diagnostics = format_source(Source("a.mix", "let a ="))
    assert formatted is None and [d.code for d in diagnostics] == ["MX102"]


# --- generated specs --------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "mixer", "block", "state", "head_dim", "x" * 25])
ATOMS = NAMES | st.sampled_from(["1", "32_000", "2.5e-3", '"s # \\" t"', "true"])


def words(*parts: list[str] | str) -> list[str]:
    return [w for part in parts for w in ([part] if isinstance(part, str) else part)]


def listed(opening: str, items: list[list[str]], closing: str, comma: bool) -> list[str]:
    inner = [word for item in items for word in [*item, ","]]
    return words(opening, inner if comma else inner[:-1], closing)


def compound(inner: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    ops = st.sampled_from(["|", "&", ">>", "+", "-", "*", "/", "//", "@"])
    argument = inner | st.builds(lambda n, e: words(n, "=", e), NAMES, inner)
    items = st.lists(inner, max_size=4)
    return st.one_of(
        st.builds(words, inner, ops, inner),
        st.builds(words, st.just("-"), inner),
        st.builds(words, st.just("("), inner, st.just(")")),
        st.builds(listed, st.just("["), items, st.just("]"), st.booleans()),
        st.builds(
            lambda n, items, comma: words(n, listed("(", items, ")", comma)),
            NAMES,
            st.lists(argument, max_size=4),
            st.booleans(),
        ),
        st.builds(lambda n: words(n, ".", "T"), NAMES),
    )


EXPRESSIONS = st.recursive(ATOMS.map(lambda a: [a]), compound, max_leaves=12)
PARAMETERS = st.builds(
    lambda name, kind, value, bounds: words(
        name, [":", "int"] if kind else [], ["=", *value], ["in", "1", "..", *bounds]
    ),
    NAMES,
    st.booleans(),
    EXPRESSIONS,
    EXPRESSIONS,
)
DEFINED = st.builds(
    lambda head, name, ps, value: words(head, name, listed("(", ps, ")", False), "=", value),
    st.sampled_from(["let", "mixer"]),
    NAMES,
    st.lists(PARAMETERS, max_size=3),
    EXPRESSIONS,
)
FIELDS = st.one_of(
    st.builds(lambda name, value: words(name, "=", value), NAMES, EXPRESSIONS),
    st.builds(lambda i, value: words("layers", "[", i, ":", "]", "=", value), EXPRESSIONS, ATOMS),
    PARAMETERS.map(lambda p: ["param", *p]),
)
LINES = st.builds(lambda name, value: words(name, "+=", value), NAMES, EXPRESSIONS)


def braced(head: list[str], items: list[list[str]]) -> list[str]:
    return words(head, "{", [word for item in items for word in [*item, "\n"]], "}")


STATEMENTS = st.one_of(
    DEFINED,
    st.builds(braced, st.just(["model", "m"]), st.lists(FIELDS, max_size=4)),
    st.builds(braced, st.just(["block", "b", "(", "x", ")"]), st.lists(LINES, max_size=3)),
)
ENDS = st.sampled_from(["\n", ";", " # c\n", "\n\n\n", "\n# own\n", "\n\n# own\n\n"])
BLANKS = st.sampled_from([" ", " ", " ", "\n", " # in\n", "\n # own\n"])


@st.composite
def specs(draw: st.DrawFn) -> str:
    """Sound specs with newlines and comments wherever the language allows them."""
    text, depth = "", 0
    for statement in draw(st.lists(STATEMENTS, min_size=1, max_size=4)):
        for word in statement:
            depth += word in {"(", "["}
            depth -= word in {")", "]"}
            free = depth > 0 or word in {"=", "+=", "+", "|", ">>", "{"}
            text += draw(ENDS) if word == "\n" else word + draw(BLANKS if free else st.just(" "))
        text += draw(ENDS)
    return text


@RELAXED
@given(specs())
def test_generated_specs(text: str) -> None:
    assert not list(parse(Source("a.mix", text))[1])
    check(text)


GALLERY = """\
# laLTE
import "mixers.mix"
mixer gdn(heads, head_dim, expand_v=2) =
  recurrence(heads=heads, key_dim=head_dim, value_dim=head_dim * expand_v,
             features=silu >> l2norm, decay=scalar, update=delta)
block prenorm(mixer, ffn) { x += mixer(norm(x));  x += ffn(norm(x)) }
recurrence rule { state S[key, value]; S += b * outer(k, v - S.T @ k) }
model lalte {
  param w: int = 768 in 64..8192      # from the command line

  vocab = 32_000
  let lte = attention(heads=16, keep=window(w) | learned(budget=b, sinks=4))
  ffn = swiglu(ratio=8/3)
  layers = ([gdn] * 3 + [lte]) * 12  # twelve
  layers[0, -1] = layer(mixer, ffn=none)
}
"""
PIECES = st.sampled_from([*list("()[]{},=+-*/|&@.:;#\n \"'$"), "..", ">>", "let ", "1.", "mixer "])


@RELAXED
@given(
    st.lists(
        st.tuples(st.integers(0, len(GALLERY)), st.integers(0, 8), st.just("") | PIECES),
        max_size=4,
    )
)
def test_edited_specs(edits: list[tuple[int, int, str]]) -> None:
    text = GALLERY
    for at, cut, piece in edits:
        text = text[:at] + piece + text[at + cut :]
    check(text)
