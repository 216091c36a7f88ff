"""Every mistake is reported once, where it is, and costs no more than its statement."""

import pytest

from mixerlang.source import Source
from mixerlang.syntax import ast, parse

MISTAKES = [
    # a statement, its code, the text of the span, a part of the message or of the help
    ("let a := 3", "MX101", ":=", "write `=`"),
    ("let a = b == c", "MX101", "==", "no comparisons"),
    ("let a = b ** c", "MX101", "**", "no powers"),
    ("let a = 'text'", "MX105", "'text'", "double quotes"),
    ('let a = "text', "MX105", '"text', "not closed"),
    ('let a = "a\\qb"', "MX105", "\\q", "unknown escape"),
    ('let a = "a\tb"', "MX105", "\t", "U+0009"),
    ("let a = 1__0", "MX104", "1__0", "malformed"),
    ("let a = 5 $ 3", "MX101", "$", "not part of the language"),
    ("let a = größe", "MX101", "größe", "ASCII"),
    ("let a = b\u00a0+ c", "MX101", "\u00a0", "space"),
    ("let a = ", "MX102", "", "expected an expression, found the end of the"),
    ("let = 3", "MX102", "=", "expected a name, found `=`"),
    ("let a 3", "MX102", "3", "expected `=`, found `3`"),
    ("let a = 3 4", "MX102", "4", "expected the end of the line, found `4`"),
    ("let a = )", "MX102", ")", "expected an expression, found `)`"),
    ("let f(a b) = 3", "MX102", "b", "expected `)` or `,`, found `b`"),
    ("let f(let x) = 3", "MX102", "let", "reserved word"),
    ("let a = f(b, , c)", "MX102", ",", "expected `)` or an expression"),
    ("let a = f(x=)", "MX102", ")", "expected an expression"),
    ("let a = [b c]", "MX102", "c", "expected `]` or `,`"),
    ("let a = [b:c]", "MX102", ":", "slices"),
    ("let a = b[0]", "MX102", "[", "takes an index"),
    ("let a = 1..3", "MX102", "..", "range"),
    ("let a = b.", "MX102", "", "expected a name"),
    ("let a = {b: c}", "MX102", "{", "expected an expression"),
    ("let a = f(x", "MX103", "(", "`(` is not closed"),
    ("let a = f([x, y)", "MX103", "[", "`[` is not closed"),
    ("let a = f(x,\n  g(y", "MX103", "(", "`(` is not closed"),
    ("let f(x = a", "MX103", "(", "`(` is not closed"),
    ("let a = (b\n  + c", "MX103", "(", "`(` is not closed"),
]
TOP = [
    ("import mixers", "MX102", "mixers", '`import "file.mix"`'),
    ("import", "MX102", "", "expected a string"),
    ("def f(x): return x", "MX102", "def", "`let f(x) = ...`"),
    ("modle m { a = 1 }", "MX102", "modle", "did you mean `model`?"),
    ("a = 1", "MX106", "a", "inside a model"),
    ("a += 1", "MX106", "a", "does not belong at the top level"),
    ("param w: int", "MX106", "param", "inside a model"),
    ("state S[key]", "MX106", "state", "inside a recurrence"),
    ("mixer f(x) { x += 1 }", "MX102", "{", "expected `=`"),
    ("mixer", "MX102", "mixer", "expected a statement"),
    ("block b { x += 1 }", "MX102", "{", "expected `(`"),
    ("block b(x) { let y = 1 }", "MX106", "let", "does not belong inside a block"),
    ("block b(x) { x *= 2 }", "MX101", "*=", "x = x * ..."),
    ("block b(x, { x += 1 }", "MX103", "(", "`(` is not closed"),
    ("recurrence r { S[key] = 1 }", "MX102", "[", "expected `=` or `+=`"),
    ("layers[0] = a", "MX106", "layers", "`layers[...]` does not belong at the top level"),
    ("model { a = 1 }", "MX102", "{", "expected a name"),
    ("model m n { a = 1 }", "MX102", "n", "expected `{`"),
    ("model m\n  a = 1\n}", "MX102", "", "expected `{`, found the end of the line"),
    ("}", "MX102", "}", "expected a statement, found `}`"),
    (") + 1", "MX102", ")", "expected a statement"),
    ("- 1", "MX102", "-", "ends with its operator"),
    ("model m { a = 1 } }", "MX102", "}", "expected the end of the line, found `}`"),
]
ITEMS = [
    ("vocab 3", "MX102", "3", "expected `=`"),
    ("parm w: int = 3", "MX102", "w", "did you mean `param`?"),
    ("param w int = 3", "MX102", "int", "found `int`"),
    ("param w: int in 1", "MX102", "", "`..`"),
    ("vocab += 3", "MX102", "+=", "expected `=`"),
    ("layers[0 1] = a", "MX102", "1", "expected `]` or `,`"),
    ("layers[] = a", "MX102", "]", "expected"),
    ("layers[0, 1 = a", "MX103", "[", "`[` is not closed"),
    ("mixer c(x) = 3", "MX106", "mixer", "does not belong inside a model"),
    ("block c(x) { x = 3 }", "MX106", "block", "does not belong inside a model"),
    ('import "a.mix"', "MX106", "import", "top level"),
    ("norm = f(\n    x,\n    y", "MX103", "(", "`(` is not closed"),
    ("a = b\n    >> c", "MX102", ">>", "ends with its operator"),
    ("a = b +", "MX102", "", "expected an expression, found the end of the line"),
]


def problems(text: str) -> list[tuple[str, str, str]]:
    _, diagnostics = parse(Source("a.mix", text))
    return [(d.code, d.span.text if d.span else "", f"{d.message} {d.help}") for d in diagnostics]


@pytest.mark.parametrize("text, code, span, words", MISTAKES + TOP)
def test_alone(text: str, code: str, span: str, words: str) -> None:
    ((found, place, said),) = problems(text)
    assert (found, place) == (code, span)
    assert words in said


@pytest.mark.parametrize("text, code, span, words", MISTAKES + TOP)
def test_between_sound_statements(text: str, code: str, span: str, words: str) -> None:
    text = f"let before = 1\n{text}\nlet after = f(1)\nmodel last {{ a = 1 }}"
    file, _ = parse(Source("a.mix", text))
    assert [(c, s) for c, s, _ in problems(text)] == [(code, span)]
    names = [s.name.id for s in file.statements if isinstance(s, ast.Let | ast.Model)]
    assert names[0] == "before" and names[-2:] == ["after", "last"]


@pytest.mark.parametrize("text, code, span, words", MISTAKES + ITEMS)
def test_in_a_model(text: str, code: str, span: str, words: str) -> None:
    text = f"model m {{\n  before = 1\n  {text}\n  after = f(1)\n}}\nlet last = 1"
    file, _ = parse(Source("a.mix", text))
    ((found, place, said),) = problems(text)
    assert (found, place) == (code, span)
    assert words in said
    model, last = file.statements
    assert isinstance(model, ast.Model) and isinstance(last, ast.Let)
    names = [item.name.id for item in model.items if isinstance(item, ast.Field)]
    assert names[0] == "before" and names[-1] == "after"


def test_all_at_once() -> None:
    """Every mistake of a file is reported, each exactly once and in order."""
    items = "\n".join(f"  {text}\n  ok = 1" for text, *_ in ITEMS)
    tops = "\n".join(text for text, *_ in MISTAKES + TOP if text != "}")
    expected = [(code, span) for text, code, span, _ in MISTAKES + TOP if text != "}"]
    expected += [(code, span) for _, code, span, _ in ITEMS]
    assert len(expected) < 100
    assert [(c, s) for c, s, _ in problems(f"{tops}\nmodel m {{\n{items}\n}}")] == expected


@pytest.mark.parametrize(
    "text, codes",
    [
        ("model a {\n  x = 1\nmodel b {\n  y = 2\n}", ["MX103"]),
        ("model a {\n  x = 1\n\nmixer f(x) = x\nmodel b { y = 2 }", ["MX103"]),
        ("model a {\n  x = f(\nmodel b {\n  y = 2\n}", ["MX103", "MX103"]),
        ("model b {\n  y = 2", ["MX103"]),
    ],
)
def test_missing_brace(text: str, codes: list[str]) -> None:
    file, diagnostics = parse(Source("a.mix", text))
    assert [d.code for d in diagnostics] == codes
    *_, last = file.statements
    assert isinstance(last, ast.Model) and last.name.id == "b" and len(last.items) == 1


def test_places() -> None:
    source = Source("a.mix", "let a = f(x,\n  y\nlet b = 2 +  # why\nlet c = 3\n")
    first, second = parse(source)[1]
    assert first.span and (first.span.begin, first.span.finish) == ((1, 10), (1, 11))
    assert [str(note.span) for note in first.notes] == ["a.mix:2:4"]
    assert second.span and (second.span.begin, second.span.finish) == ((3, 12), (3, 12))
