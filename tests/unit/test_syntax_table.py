"""The serialized table is that of the grammar, and reads what lark itself reads."""

import subprocess
import sys
from collections.abc import Iterator

from lark import Lark, Token

from mixerlang.diagnostics import Diagnostics
from mixerlang.source import Source
from mixerlang.syntax import ast, parse
from mixerlang.syntax.build_table import GRAMMAR, build
from mixerlang.syntax.layout import arrange
from mixerlang.syntax.table import EOF, PATH, START
from mixerlang.syntax.tokens import tokenize

SPEC = """
import "a.mix"
let f(a, b: int = 3 in 1..9, c=-1.5e-3,) = a * -b // 2 >> [a, (b | c) & "s\\"t"] - true

mixer m = recurrence(
  heads=1, mixer
)
block b(mixer, ffn) { x += mixer(norm(x)); h = ffn(x) }  # trailing
recurrence r(k) {
  state S[key, value]
  S += b * outer(k, v - S.T @ k)
}
model z {
  param w: int = 768 in 64..8_192
  block = parallel
  layers[0, -1, ::4, a:b] = layer(mixer, ffn=none)
}
"""


class _Layout:
    """Lark's own tokens through our layout."""

    always_accept = ("_END",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        list(stream)
        for word in arrange(tokenize(Source("a", SPEC), Diagnostics())).words:
            if word.kind != EOF:
                yield Token(word.kind, word.text)


def test_table_is_current() -> None:
    assert PATH.read_text("utf-8") == build(), "run python -m mixerlang.syntax.build_table"


def test_parsing_needs_no_lark() -> None:
    program = (
        "import sys; from mixerlang.source import Source; from mixerlang.syntax import parse; "
        "parse(Source('a', 'let a = 1')); print(sorted({'lark', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_lexer_equals_larks() -> None:
    grammar = Lark(
        GRAMMAR.read_text("utf-8"), parser="lalr", lexer="basic", start=START, postlex=_Layout()
    )
    theirs = [(t.type, str(t)) for t in grammar.lex(SPEC, dont_ignore=True)]
    ours = [(t.kind, t.text) for t in arrange(tokenize(Source("a", SPEC), Diagnostics())).words]
    assert theirs == ours[:-1]
    raw = Lark(GRAMMAR.read_text("utf-8"), parser="lalr", lexer="basic", start=START)
    lexed = [(t.type, str(t)) for t in raw.lex(SPEC, dont_ignore=True)]
    assert lexed == [(t.kind, t.text) for t in tokenize(Source("a", SPEC), Diagnostics())]


def test_parser_equals_larks() -> None:
    grammar = Lark(
        GRAMMAR.read_text("utf-8"), parser="lalr", lexer="basic", start=START, postlex=_Layout()
    )
    tree = grammar.parse(SPEC)
    file, diagnostics = parse(Source("a", SPEC))
    assert not list(diagnostics)
    assert len(tree.children) == len(file.statements)
    assert _leaves(file) == [str(t) for t in tree.scan_values(_is_leaf)]


def _is_leaf(value: object) -> bool:
    return isinstance(value, Token) and value.type in {"NAME", "NUMBER"}


def _leaves(node: object) -> list[str]:
    """Names and numbers of a tree in order of the text."""
    found: list[tuple[int, str]] = []

    def walk(value: object) -> None:
        if isinstance(value, ast.Name | ast.Number):
            found.append((value.span.start, value.span.text))
        elif isinstance(value, ast.Node):
            for name in value.__dataclass_fields__:
                walk(getattr(value, name))
        elif isinstance(value, tuple):
            for part in value:
                walk(part)

    walk(node)
    return [text for _, text in sorted(found)]
