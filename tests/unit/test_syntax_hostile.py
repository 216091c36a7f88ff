"""Absurd files end in diagnostics, soon, and never in a traceback."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixerlang.diagnostics import LIMIT
from mixerlang.source import Source
from mixerlang.syntax import ast, format_source, parse
from mixerlang.syntax.parser import HEIGHT, SIZE

# The machine may be busy: hypothesis is not to judge our speed.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SECONDS = 3.0
"""About a second is the aim; the rest is for a busy machine."""

HOSTILE = {
    "open brackets": ("let x = " + "[" * SIZE, {"MX010"}),
    "open and closed brackets": ("let x = " + "(" * 60_000 + "a" + ")" * 60_000, {"MX010"}),
    "lines of brackets": ("(\n" * SIZE, {"MX102"}),
    "mixed brackets": ("(" * 40_000 + "]" * 40_000 + "}" * 40_000, {"MX102"}),
    "braces": ("{" * SIZE, {"MX102"}),
    "minus": ("let x = " + "-" * 100_000 + "a", {"MX010"}),
    "minus to the end": ("let x = " + "-" * 100_000, {"MX102"}),
    "a sum": ("let x = a" + "+a" * 60_000, {"MX010"}),
    "nested sums": ("let x = " + "(a|" * 40_000, {"MX010"}),
    "calls": ("let x = f" + "()" * 60_000, {"MX010"}),
    "attributes": ("let x = f" + ".T" * 60_000, {"MX010"}),
    "digits": ("let x = " + "9" * 130_000, {"MX013"}),
    "points": ("let x = " + "1." * 60_000, {"MX104"}),
    "underscores": ("let x = " + "1_" * 60_000 + "x", {"MX104"}),
    "exponent": ("let x = 1e999999999", {"MX013"}),
    "small exponent": ("let x = 1e-999999999", {"MX013"}),
    "endless exponent": ("let x = 1e" + "9" * 100_000, {"MX013"}),
    "zeros": ("let x = 0." + "0" * 100_000, {"MX013"}),
    "quotes": ('"\n' * 60_000, {"MX105", "MX090"}),
    "backslashes": ('let x = "' + "\\" * 100_000, {"MX105"}),
    "surrogates": ("\ud800" * 40_000, {"MX101"}),
    "zero bytes": ("\0" * 130_000, {"MX101"}),
    "words": ("mixer a\n" * 16_000, {"MX102", "MX090"}),
    "models": ("model a {\n" * 13_000, {"MX103", "MX090"}),
    "too large": ("x" * 10_000_000, {"MX003"}),
    "too large in bytes": ("é" * (SIZE // 2 + 1), {"MX003"}),
}


@pytest.mark.parametrize("text, codes", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile(text: str, codes: set[str]) -> None:
    source = Source("a.mix", text[:SIZE] if "MX003" not in codes else text)
    start = time.perf_counter()
    _, diagnostics = parse(source)
    assert time.perf_counter() - start < SECONDS
    assert {d.code for d in diagnostics} == codes
    assert len(diagnostics) <= LIMIT + 1
    for item in diagnostics:
        assert item.message.isprintable() and len(item.message) < 200


@pytest.mark.parametrize(
    "text",
    [
        "let x = [" + "a," * 65_000 + "]",
        "let x = f(" + "a=1," * 32_000 + ")",
        "model a {\n" + "a = 3\n" * 21_000 + "}",
        ";" * SIZE,
        "let x = [" + "\n" * 130_000 + "]",
        "#\n" * (SIZE // 2),
    ],
)
def test_large_but_sound(text: str) -> None:
    start = time.perf_counter()
    _, diagnostics = parse(Source("a.mix", text))
    assert time.perf_counter() - start < SECONDS
    assert not list(diagnostics)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100 + "a" + ")" * 100,
        "f(" * 100 + "a" + ")" * 100,
        "[" * 100 + "]" * 100,
        "-" * HEIGHT + "a",
        "a" + "+a" * HEIGHT,
        "a" + ".T" * HEIGHT,
        "f(-" * (HEIGHT // 3) + "a" + ")" * (HEIGHT // 3),
    ],
)
def test_what_is_allowed_can_be_walked(text: str) -> None:
    source = Source("a.mix", f"let x = {text}")
    file, diagnostics = parse(source)
    assert not list(diagnostics)
    repr(file)
    assert hash(file) and file == parse(source)[0]
    formatted, _ = format_source(source)
    assert formatted is not None


@pytest.mark.parametrize(
    "text", ["(" * 101 + "a" + ")" * 101, "-" * (HEIGHT + 1) + "a", "a" + "+a" * (HEIGHT + 1)]
)
def test_one_more_is_not(text: str) -> None:
    file, diagnostics = parse(Source("a.mix", f"let x = {text}\nlet y = 1"))
    assert [d.code for d in diagnostics] == ["MX010"]
    assert len(file.statements) == 1


def test_size_is_counted_in_bytes_before_lexing() -> None:
    assert not list(parse(Source("a", "#" + "é" * (SIZE // 2 - 1)))[1])
    file, diagnostics = parse(Source("a", "$" * (SIZE + 1)))
    assert [d.code for d in diagnostics] == ["MX003"] and file.statements == ()


WORDS = [
    *("let", "model", "param", "import", "in", "mixer", "block", "recurrence", "state", "true"),
    *("a", "b", "1", "2.5", '"s"', "x.T", "1..2", "(", ")", "[", "]", "{", "}", ",", ";", ":"),
    *("=", "+=", "+", "-", "*", "/", "//", "|", "&", ">>", "@", ".", "..", "\n", "\n", "#"),
    *("$", ":=", "'", "1_"),
]


@RELAXED
@given(st.lists(st.sampled_from(WORDS), max_size=60), st.sampled_from(["", " "]))
def test_any_words(words: list[str], blank: str) -> None:
    file, diagnostics = parse(Source("a.mix", blank.join(words)))
    assert isinstance(file, ast.File)
    list(diagnostics)


@RELAXED
@given(st.text(st.characters(codec=None)))
def test_any_text(text: str) -> None:
    format_source(Source("a.mix", text))
