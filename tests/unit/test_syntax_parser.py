"""Sound text to the tree that it means."""

import dataclasses
from fractions import Fraction

import pytest

from mixerlang.source import Source
from mixerlang.syntax import ast, parse


def read(text: str) -> ast.File:
    file, diagnostics = parse(Source("a.mix", text))
    assert [(d.code, d.message) for d in diagnostics] == []
    return file


def show(node: object) -> str:
    """A tree as text with all its brackets."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Number(value=value):
            return str(value)
        case ast.Boolean(value=value):
            return str(value).lower()
        case ast.String(value=value):
            return repr(value)
        case ast.ListExpr(items=items):
            return f"[{', '.join(map(show, items))}]"
        case ast.Argument(name=name, value=value):
            return f"{name.id}={show(value)}" if name else show(value)
        case ast.Call(function=function, arguments=arguments):
            return f"{show(function)}({', '.join(map(show, arguments))})"
        case ast.Unary(op=op, operand=operand):
            return f"({op}{show(operand)})"
        case ast.Binary(op=op, left=left, right=right):
            return f"({show(left)} {op} {show(right)})"
        case ast.Attribute(value=value, name=name):
            return f"{show(value)}.{name.id}"
        case ast.Slice(start=start, stop=stop, step=step):
            return ":".join("" if part is None else show(part) for part in (start, stop, step))
    raise AssertionError(node)


def value(text: str) -> ast.Expr:
    (statement,) = read(f"let x = {text}").statements
    assert isinstance(statement, ast.Let)
    return statement.value


@pytest.mark.parametrize(
    "text, tree",
    [
        ("a | b & c >> d + e * f", "(a | (b & (c >> (d + (e * f)))))"),
        ("a * b + c >> d & e | f", "(((((a * b) + c) >> d) & e) | f)"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b // c @ d * e", "((((a / b) // c) @ d) * e)"),
        ("a >> b >> c", "((a >> b) >> c)"),
        ("-a * -b", "((-a) * (-b))"),
        ("a - -b", "(a - (-(b)))".replace("(b)", "b")),
        ("--a", "(-(-a))"),
        ("-f(x).T", "(-f(x).T)"),
        ("-S.T @ k", "((-S.T) @ k)"),
        ("(a | b) & c", "((a | b) & c)"),
        ("f(a)(b=1,).T", "f(a)(b=1).T"),
        ("[a, b] * 12", "([a, b] * 12)"),
        ("([gdn] * 3 + [attn],)", None),
        ("[[], [a,],]", "[[], [a]]"),
        ('f("a\\"b\\\\c\\n", true, false, none)', "f('a\"b\\\\c\\n', true, false, none)"),
        ("8/3", "(8 / 3)"),
        ("f(mixer, block=state, recurrence=mixer(block))", None),
    ],
)
def test_expressions(text: str, tree: str | None) -> None:
    if text == "([gdn] * 3 + [attn],)":  # there are no tuples
        assert [d.code for d in parse(Source("a", f"let x = {text}"))[1]] == ["MX102"]
        return
    assert show(value(text)) == (text if tree is None else tree)


@pytest.mark.parametrize(
    "text, number, integer",
    [
        ("32_000", 32000, True),
        ("1e-6", Fraction(1, 10**6), False),
        ("2.5e-3", Fraction(1, 400), False),
        ("1_0.2_5E+1", Fraction("102.5"), False),
        ("0.1", Fraction(1, 10), False),
        ("2.0", 2, False),
        ("007", 7, True),
        ("9223372036854775807", 2**63 - 1, True),
        ("1e308", 10**308, False),
    ],
)
def test_numbers(text: str, number: Fraction, integer: bool) -> None:
    node = value(text)
    assert isinstance(node, ast.Number)
    assert (node.value, node.integer) == (number, integer)


@pytest.mark.parametrize("text", ["9223372036854775808", "1e309", "1e-309", "0." + "1" * 64])
def test_numbers_out_of_bounds(text: str) -> None:
    _, diagnostics = parse(Source("a", f"let x = {text}"))
    assert [(d.code, d.span and d.span.text) for d in diagnostics] == [("MX013", text)]


MODEL = """\
# laLTE
import "mixers.mix"
let local(w) = attention(heads=16, keep=window(w))
let f(a, b: int = 3 in 1..9, c in -1.5..x*2, d: float) = a
mixer hymba(h) = mean(local(1024), mamba2(heads=h))
mixer plain = attention()
block prenorm(mixer, ffn)  { x += mixer(norm(x));  x += ffn(norm(x)) }
recurrence my_rule {
  state S[key, value]
  S = a * S
  S += b * outer(k, v - S.T @ k)
  o = S.T @ q
}
model lalte {
  param w: int = 768 in 64..8192      # from the command line
  let lte = attention(heads=16, position=rope(theta=10_000),
                      keep=window(w) | learned(budget=w, sinks=4))
  block  = parallel
  layers = [gdn, lte] * 12
  layers[0, -1] = attn; layers[::4] = local(128)
  layers[1:, :n - 1, 2:8:2,] = layer(mixer, ffn=none)
}
"""


def test_statements() -> None:
    file = read(MODEL)
    kinds = [type(s) for s in file.statements]
    assert kinds == [
        ast.Import, ast.Let, ast.Let, ast.MixerDef, ast.MixerDef, ast.BlockDef,
        ast.RecurrenceDef, ast.Model,
    ]  # fmt: skip
    imported, _, f, hymba, plain, block, rule, _ = file.statements
    assert isinstance(imported, ast.Import) and imported.path.value == "mixers.mix"
    assert isinstance(f, ast.Let) and f.parameters
    shown = [
        (
            p.name.id,
            p.annotation and p.annotation.id,
            p.default and show(p.default),
            p.range and (show(p.range.low), show(p.range.high)),
        )
        for p in f.parameters
    ]
    assert shown == [
        ("a", None, None, None),
        ("b", "int", "3", ("1", "9")),
        ("c", None, None, ("(-3/2)", "(x * 2)")),
        ("d", "float", None, None),
    ]
    assert isinstance(hymba, ast.MixerDef) and hymba.parameters
    assert isinstance(plain, ast.MixerDef) and plain.parameters is None
    assert isinstance(block, ast.BlockDef) and [line.op for line in block.body] == ["+=", "+="]
    assert isinstance(rule, ast.RecurrenceDef) and rule.parameters is None
    state = rule.body[0]
    assert isinstance(state, ast.State) and [axis.id for axis in state.axes] == ["key", "value"]
    assert [type(line) for line in rule.body[1:]] == [ast.Assign] * 3


def test_model() -> None:
    model = read(MODEL).statements[-1]
    assert isinstance(model, ast.Model)
    kinds = [type(item) for item in model.items]
    assert kinds == [ast.Param, ast.Let, ast.Field, ast.Field] + [ast.Override] * 3
    fields = [item.name.id for item in model.items if isinstance(item, ast.Field)]
    assert fields == ["block", "layers"]
    indices = [
        [show(i) for i in item.indices] for item in model.items if isinstance(item, ast.Override)
    ]
    assert indices == [["0", "(-1)"], ["::4"], ["1::", ":(n - 1):", "2:8:2"]]


def test_spans_are_exact() -> None:
    file = read(MODEL)
    assert file.span.text == MODEL
    model = file.statements[-1]
    assert isinstance(model, ast.Model)
    assert model.span.text == MODEL[MODEL.index("model lalte") :].strip()
    param, let, *_, last = model.items
    assert param.span.text == "param w: int = 768 in 64..8192"
    assert param.span.begin == (15, 3) and param.span.finish == (15, 33)
    assert isinstance(param, ast.Param) and param.parameter.range
    assert param.parameter.range.span.text == "64..8192"
    assert isinstance(let, ast.Let) and isinstance(let.value, ast.Call)
    assert [a.span.text for a in let.value.arguments][:2] == [
        "heads=16",
        "position=rope(theta=10_000)",
    ]
    assert isinstance(last, ast.Override)
    assert [i.span.text for i in last.indices] == ["1:", ":n - 1", "2:8:2"]


def test_every_span_lies_in_its_parents() -> None:
    def walk(node: ast.Node) -> None:
        for field in dataclasses.fields(node):
            part = getattr(node, field.name)
            for child in part if isinstance(part, tuple) else (part,):
                if isinstance(child, ast.Node):
                    assert node.span.start <= child.span.start <= child.span.end <= node.span.end
                    assert child.span.text == child.span.text.strip()
                    walk(child)

    walk(read(MODEL))


def test_parentheses_belong_to_the_span_of_what_holds_them() -> None:
    node = value("((a) + b) * c")
    assert isinstance(node, ast.Binary) and isinstance(node.left, ast.Binary)
    assert node.span.text == "((a) + b) * c"
    assert node.left.span.text == "(a) + b"
    assert node.left.left.span.text == "a"


@pytest.mark.parametrize(
    "text",
    [
        "let x =\n\n a\nlet y = b",
        "let x = a |\n  b # c\n # d\n\nlet y = b",
        "let x = f(\n\n  a\n  ,\n b)\nlet y = b",
        "let x = [\n] ; let y = b",
        ";;\n; let x = a;;\nlet y = b;\n;",
        "let x = (a\n+ b)\r\nlet y = b",
        "let x = f(a,\n)\n# c\nlet y = b",
        "\ufefflet x = a\nlet y = b",
        "let x = f(\n mixer,\n block,\n state\n)\nlet y = b",
        "model m\n{\n\n a = 1\n\n}\nlet y = b",
        "block b(m) {}\nmodel m { }",
        "model m { a = 1; b = 2 }\nmodel n { a = 1 # c\n }",
        "let f(\n  a,\n  b = 1\n    in 1..2\n) = a\nlet y = b",
    ],
)
def test_two_statements(text: str) -> None:
    assert len(read(text).statements) == 2


@pytest.mark.parametrize("text", ["", "\n", "  # only a comment", ";", "\ufeff", "\r\n\t"])
def test_empty(text: str) -> None:
    assert read(text).statements == ()


def test_soft_keywords_are_names_elsewhere() -> None:
    file = read(
        "let mixer = state\n"
        "mixer mixer(mixer, block: state = recurrence) = block\n"
        "block block(mixer) { mixer = block(mixer); state += recurrence }\n"
        "recurrence recurrence { state state[state]; block = mixer }\n"
        "model model_ { block = mixer; mixer = 1; state[0] = block; param state: int }\n"
    )
    names = [statement.name.id for statement in file.statements if hasattr(statement, "name")]
    assert names == ["mixer", "mixer", "block", "recurrence", "model_"]
    block, rule = file.statements[2:4]
    assert isinstance(block, ast.BlockDef) and [a.target.id for a in block.body] == [
        "mixer",
        "state",
    ]
    assert isinstance(rule, ast.RecurrenceDef) and isinstance(rule.body[0], ast.State)


@pytest.mark.parametrize("word", ["let", "param", "model", "import", "in", "true", "false"])
def test_reserved_words(word: str) -> None:
    _, diagnostics = parse(Source("a", f"let {word} = 1"))
    assert [(d.code, d.help) for d in diagnostics] == [("MX102", f"`{word}` is a reserved word")]
