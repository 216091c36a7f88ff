"""One diagnostic record as full text, one line, JSON and GitHub annotations."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.diagnostics import Diagnostic, Note, Severity
from mixerlang.diagnostics.render import Format, render
from mixerlang.diagnostics.terminal import clean, wants_color, width
from mixerlang.source import Source, Span


def diagnostic(text: str, start: int, end: int, **more: object) -> Diagnostic:
    span = Span(Source("a.mix", text), start, end)
    return Diagnostic("MX302", Severity.ERROR, "too large", span, **more)  # type: ignore[arg-type]


def marked(text: str, start: int, end: int) -> list[str]:
    """The rows of the snippet in the full form."""
    return render([diagnostic(text, start, end)], Format.FULL).split("\n")[1:-2]


def test_full_form() -> None:
    text = "let a = 1\nlet b = window(99)\n"
    note = Note("the limit", Span(Source("b.mix", "param w = 9"), 6, 7))
    item = diagnostic(text, 18, 28, help="use 9", notes=(note, Note("it is 9")))
    assert render([item], Format.FULL) == """\
a.mix:2:9: error MX302 too large
  |
2 | let b = window(99)
  |         ^^^^^^^^^^
b.mix:1:7: note: the limit
  |
1 | param w = 9
  |       -
  note: it is 9
  help: use 9

1 error"""


def test_several_are_counted() -> None:
    warning = Diagnostic("MX408", Severity.WARNING, "unread", None)
    text = render([warning, diagnostic("x", 0, 1), diagnostic("x", 0, 1)], Format.FULL)
    assert text.startswith("warning MX408 unread\n\n")
    assert text.endswith("\n\n2 errors, 1 warning")
    assert render([], Format.FULL) == ""


def test_concise_is_the_first_line_of_full() -> None:
    item = diagnostic("one\ntwo", 4, 7)
    concise = render([item], Format.CONCISE)
    assert concise == "a.mix:2:1: error MX302 too large"
    assert render([item], Format.FULL).split("\n")[0] == concise


@pytest.mark.parametrize(
    ("text", "start", "end", "expected"),
    [
        ("\tab", 2, 3, ["  |", "1 |     ab", "  |      ^"]),
        ("a\tb", 2, 3, ["  |", "1 | a   b", "  |     ^"]),
        ("日本 = 1", 1, 2, ["  |", "1 | 日本 = 1", "  |   ^^"]),
        ("e\u0301 = x", 5, 6, ["  |", "1 | e\u0301 = x", "  |     ^"]),
        ("ab", 2, 2, ["  |", "1 | ab", "  |   ^"]),
        ("ab\n", 3, 3, ["  |", "2 |", "  | ^"]),
        ("ab\r\ncd", 0, 3, ["  |", "1 | ab", "  | ^^"]),
        ("a[\n\n  1]\n", 1, 7, ["  |", "1 | a[", "  |  ^", "2 |", "3 |   1]", "  |   ^"]),
    ],
    ids=["tab", "inner tab", "wide", "combining", "end", "empty last line", "crlf", "lines"],
)
def test_marks(text: str, start: int, end: int, expected: list[str]) -> None:
    assert marked(text, start, end) == expected


def test_long_span_shows_its_ends() -> None:
    rows = marked("\n".join(f"line {n}" for n in range(1, 101)), 0, 790)
    numbers = [row.split(" |")[0].strip() for row in rows if "line" in row]
    assert numbers == ["1", "2", "3", "4", "99", "100"]
    assert "    ..." in rows


def test_long_line_is_cut_around_the_mark() -> None:
    text = "a" * 50_000 + "X" + "b" * 50_000
    _, line, marks = marked(text, 50_000, 50_001)
    assert len(line) < 120
    assert line[marks.index("^")] == "X"


CHARACTERS = st.text(st.sampled_from("ab =\t\n\r\x1b\x07\x00\x7f\x85\u202e\u200b日é\u0301\ud800 "),
                     max_size=200)


@given(CHARACTERS, st.integers(0, 200), st.integers(0, 200), CHARACTERS)
def test_nothing_reaches_the_terminal_raw(text: str, start: int, end: int, message: str) -> None:
    start, end = sorted((min(start, len(text)), min(end, len(text))))
    span = Span(Source(message, text), start, end)
    item = Diagnostic("MX101", Severity.ERROR, message, span, message, (Note(message, span),))
    for format in Format:
        shown = render([item], format)
        assert all(char.isprintable() or char == "\n" for char in shown), shown
    assert "\n" not in render([item], Format.CONCISE)
    assert "\n" not in render([item], Format.GITHUB)


@given(st.text(st.sampled_from("ab 日e\u0301\x1b"), min_size=1, max_size=80), st.data())
def test_mark_stands_under_its_character(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    marks = marked(text, place, place + 1)[2]
    assert marks.index("^") == len("1 | ") + width(clean(text[:place]))


def test_json_counts_code_points_from_one() -> None:
    items = json.loads(render([diagnostic("日本\n e\u0301x", 4, 7, help="h")], Format.JSON))
    assert items == [{
        "code": "MX302", "severity": "error", "message": "too large", "path": "a.mix",
        "line": 2, "column": 2, "end_line": 2, "end_column": 5, "help": "h",
    }]


def test_json_without_a_place() -> None:
    (item,) = json.loads(render([Diagnostic("MX001", Severity.ERROR, "m", None)], Format.JSON))
    assert [item[k] for k in ("path", "line", "column", "end_line", "end_column", "help")] == (
        [None] * 6
    )
    assert json.loads(render([], Format.JSON)) == []


def test_github_escapes() -> None:
    span = Span(Source("a,b:c%.mix", "ab\ncd"), 1, 2)
    item = Diagnostic("MX302", Severity.WARNING, "50% of: a,b", span, "help")
    assert render([item], Format.GITHUB) == (
        "::warning file=a%2Cb%3Ac%25.mix,line=1,endLine=1,col=2,endColumn=3,title=MX302"
        "::50%25 of: a,b%0Ahelp: help"
    )
    several = Diagnostic("MX302", Severity.ERROR, "m", Span(span.source, 0, 4))
    assert render([several], Format.GITHUB) == (
        "::error file=a%2Cb%3Ac%25.mix,line=1,endLine=2,title=MX302::m"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())
    item = diagnostic("ab", 0, 1)
    assert "\x1b[" in render([item], Format.FULL, color=True)
    assert "\x1b[" not in render([item], Format.FULL)
