"""Tokens lose nothing, and say what they could not read."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixerlang.diagnostics import Diagnostics
from mixerlang.source import Source
from mixerlang.syntax.tokens import Token, tokenize

# The machine may be busy: hypothesis is not to judge our speed.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def lex(text: str) -> tuple[list[Token], list[tuple[str, str]]]:
    diagnostics = Diagnostics()
    tokens = tokenize(Source("a.mix", text), diagnostics)
    return tokens, [(d.code, d.span.text) for d in diagnostics if d.span]


MIX_LIKE = st.text(st.sampled_from("ab_1.e\"'#\\\n\r\t ;:=+-*/|&>@(){}[],é\ufeff\x00\ud800"))


@RELAXED
@given(st.text(st.characters(codec=None)) | MIX_LIKE)
def test_lossless(text: str) -> None:
    tokens, _ = lex(text)
    assert "".join(token.text for token in tokens) == text
    at = 0
    for token in tokens:
        assert (token.start, token.end) == (at, at + len(token.text))
        at = token.end


@pytest.mark.parametrize(
    "text", ["0", "32_000", "1.5", "1e-6", "2.5e-3", "1_0.2_5E+3", "9223372036854775807"]
)
def test_numbers(text: str) -> None:
    tokens, errors = lex(text)
    assert [(t.kind, t.text) for t in tokens] == [("NUMBER", text)] and not errors


@pytest.mark.parametrize("text", ["1__0", "1.", ".5", "0x1", "1_", "1e", "1.5.2", "12ab", "1._5"])
def test_malformed_numbers(text: str) -> None:
    tokens, errors = lex(f"a = {text}\nb")
    assert errors == [("MX104", text)]
    assert [t.kind for t in tokens if t.kind != "SPACE"] == [
        "NAME",
        "EQUAL",
        "NUMBER",
        "_END",
        "NAME",
    ]


def test_ranges_are_no_floats() -> None:
    kinds = [(t.kind, t.text) for t in lex("64..8192 1.5..2.5")[0] if t.kind != "SPACE"]
    numbers = ["64", "8192", "1.5", "2.5"]
    assert [text for kind, text in kinds if kind == "NUMBER"] == numbers
    assert [kind for kind, _ in kinds].count("_RANGE") == 2


@pytest.mark.parametrize("text", ['"abc', "'abc'", "“abc”", '"a\\', "'"])
def test_malformed_strings(text: str) -> None:
    tokens, errors = lex(f"{text}\nb")
    assert errors == [("MX105", text)]
    assert [t.kind for t in tokens] == ["STRING", "_END", "NAME"]


@pytest.mark.parametrize("text", ["$", "$$$", "größe", ":=", "**", "\x00", "\u00a0", "×", "\ud800"])
def test_foreign_characters(text: str) -> None:
    _, errors = lex(f"a {text} b")
    assert errors == [("MX101", text)]


def test_messages_can_be_printed() -> None:
    diagnostics = Diagnostics()
    tokenize(Source("a", "\x00 \ud800 \u202e " + "é" * 1000 + " 1." + "1." * 1000), diagnostics)
    for item in diagnostics:
        assert item.message.isprintable() and len(item.message) < 200
        item.message.encode("utf-8")


def test_white_space() -> None:
    tokens, errors = lex("\ufeffa\t=\r\n1\f")
    assert not errors
    assert [t.kind for t in tokens] == [
        "SPACE", "NAME", "SPACE", "EQUAL", "SPACE", "_END", "NUMBER", "SPACE",
    ]  # fmt: skip
