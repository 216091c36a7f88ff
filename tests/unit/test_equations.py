"""Recurrences of a spec's own equations: which point of the space they are, or why none."""

from __future__ import annotations

import ast
import random
import time
from pathlib import Path

import pytest

from mixerlang.codegen.compile import compile_spec
from mixerlang.diagnostics import Diagnostics
from mixerlang.ir.build import build
from mixerlang.primitives import recurrence as r
from mixerlang.primitives.base import Op
from mixerlang.primitives.scan import Scan
from mixerlang.semantics import open_text

GATED = r.Additive(gate=True)
DELTA = r.Delta()
SCALAR = r.Scalar()
READ = "o = S.T @ q"


def resolved(equations: str, call: str = "heads=4") -> tuple[Op | None, Diagnostics]:
    """The mixer of `rule(call)`, and what is told."""
    lines = equations.replace("; ", "\n")
    if "state" not in lines:
        lines = f"state S[key, value]\n{lines}"
    project = open_text(
        f"recurrence rule {{\n{lines}\n}}\n"
        f"model m {{ vocab = 8; dim = 32; context = 8; layers = [rule({call})] }}"
    )
    model = project.resolve(project.models["m"])
    if model is None or project.diagnostics.errors:
        return None, project.diagnostics
    graph = build(model, project.diagnostics)
    return next(node.op for node in graph if node.op.kind == "mixer"), project.diagnostics


def point(equations: str, call: str = "heads=4") -> r.Recurrence:
    op, diagnostics = resolved(equations, call)
    assert isinstance(op, r.Recurrence), [item.message for item in diagnostics]
    assert not len(diagnostics), [item.message for item in diagnostics]
    return op


def reason(equations: str, call: str = "heads=4") -> str:
    """Why equations are no point."""
    op, diagnostics = resolved(equations, call)
    assert isinstance(op, Scan), [item.message for item in diagnostics]
    (told,) = [item for item in diagnostics if item.code == "MX503"]
    return told.message.partition(": ")[2]


GATED_DELTA = {
    "as in the language's page": "S = a * S; S += b * outer(k, v - S.T @ k); " + READ,
    "in one line": "S = a * S + b * outer(k, v - (a * S).T @ k); " + READ,
    "decay inside": "S = a * S + b * outer(k, v - a * S.T @ k); " + READ,
    "decay around": "S = a * (S - b * outer(k, S.T @ k)) + b * outer(k, v); " + READ,
    "expanded": "S = a * S - b * a * outer(k, S.T @ k) + b * outer(k, v); " + READ,
    "as in the paper": "state S[value, key]; S = S @ (a * (I - b * outer(k, k))) + "
    "b * outer(v, k); o = S @ q",
    "from the left": "S = (I - b * outer(k, k)) @ (a * S) + b * outer(k, v); " + READ,
    "with a name": "S = a * S; u = b * (v - k @ S); S += outer(k, u); o = q @ S",
    "other signs": "S = a * S; S = S - b * outer(-k, v - S.T @ k); " + READ,
    "halves": "S = a / 2 * S + S * a / 2; S += 0.5 * b * outer(k, 2 * v - 2 * k @ S); " + READ,
    "another gate": "gate c; S = a * S; S += c * outer(k, v - S.T @ k); " + READ,
    "another decay": "decay w; S = w * S; S += b * outer(k, v - S.T @ k); " + READ,
}


@pytest.mark.parametrize("equations", GATED_DELTA.values(), ids=GATED_DELTA)
def test_ways_to_write_the_gated_delta_rule(equations: str) -> None:
    wanted = r.Recurrence(heads=4, value_heads=4, key_dim=8, value_dim=8, decay=SCALAR,
                          update=DELTA)  # fmt: skip
    assert point(equations) == wanted


class Rewritten(ast.NodeTransformer):
    """An expression in other words: swapped, halved, negated twice, multiplied out."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        left, right, pick = node.left, node.right, self.random.randrange(6)
        if pick == 0 and isinstance(node.op, ast.Add | ast.Mult):
            return ast.BinOp(right, node.op, left)
        if pick == 1 and isinstance(node.op, ast.Sub):
            return ast.BinOp(ast.UnaryOp(ast.USub(), right), ast.Add(), left)
        sums = isinstance(right, ast.BinOp) and isinstance(right.op, ast.Add | ast.Sub)
        if pick == 2 and isinstance(node.op, ast.Mult) and sums:
            one, two = (ast.BinOp(left, ast.Mult(), each) for each in (right.left, right.right))
            return ast.BinOp(one, right.op, two)
        if pick == 3:
            half = ast.BinOp(node, ast.Div(), ast.Constant(2))
            return ast.BinOp(half, ast.Add(), half)
        if pick == 4:
            return ast.UnaryOp(ast.USub(), ast.UnaryOp(ast.USub(), node))
        return node


@pytest.mark.parametrize("seed", range(25))
def test_other_words_for_the_same_point(seed: int) -> None:
    lines = ("S = a * (S + 0 * outer(k, v))", "S = S + b * (outer(k, v) - outer(k, S.T @ k))", READ)
    other = Rewritten(seed)
    words = "; ".join(ast.unparse(other.visit(ast.parse(line))) for line in lines)
    assert point(words) == r.Recurrence(heads=4, value_heads=4, key_dim=8, value_dim=8,
                                        decay=SCALAR, update=DELTA)  # fmt: skip


POINTS = {
    "linear": ("S += outer(k, v); " + READ, {}),
    "classic": ("state S[key, value]; state z[key]; S += outer(k, v); z += k; "
                "o = S.T @ q / (z @ q)", {"normalizer": "sum"}),
    "decayed sum": ("state S[key, value]; state z[key]; S = a * S + outer(k, v); z = a * z + k; "
                    "o = S.T @ q / (q @ z)", {"normalizer": "sum", "decay": SCALAR}),
    "retention": ("S = a * S + outer(k, v); " + READ, {"decay": r.Fixed()}),
    "simple": ("S = a * S + outer(k, v); " + READ, {"decay": SCALAR}),
    "gla": ("decay a[key]; S = a * S + outer(k, v); " + READ, {"decay": r.Vector()}),
    "gla as in its paper": ("decay a[key]; S = diag(a) @ S + outer(k, v); " + READ,
                            {"decay": r.Vector()}),
    "mamba2": ("weight d; S = a * S + dt * outer(k, v); o = S.T @ q + d * v",
               {"decay": SCALAR, "update": r.Additive(step=True), "skip": True}),
    "input gate": ("S = a * S + b * outer(k, v); " + READ, {"decay": SCALAR, "update": GATED}),
    "gate on v": ("S = a * S + outer(k, b * v); " + READ, {"decay": SCALAR, "update": GATED}),
    "delta": ("S += b * outer(k, v - S.T @ k); " + READ, {"update": DELTA}),
    "negative eigenvalues": ("S += 2 * b * outer(k, v - S.T @ k); " + READ,
                             {"update": r.Delta(scale=2.0)}),
    "kda": ("decay a[key]; S = (I - b * outer(k, k)) @ diag(a) @ S + b * outer(k, v); " + READ,
            {"decay": r.Vector(), "update": DELTA}),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
def test_points(name: str) -> None:
    equations, fields = POINTS[name]
    decay = fields.get("decay")
    call = "heads=4, decay=fixed" if isinstance(decay, r.Fixed) else "heads=4"
    wanted = r.Recurrence(heads=4, value_heads=4, key_dim=8, value_dim=8, **fields)
    assert point(equations, call) == wanted


def test_a_call_takes_the_fields_of_the_primitive() -> None:
    rule = "S = a * (S - b * outer(k, S.T @ k)) + b * outer(k, v); " + READ
    call = ("heads=2, value_heads=4, key_dim=6, value_dim=10, conv=3, features=silu >> l2norm, "
            "values=silu, position=rope, output=none, scale=0.5, decay=vector(rank=3)")  # fmt: skip
    made = point("decay a[key]; S = a * S; S += b * outer(k, v - S.T @ k); " + READ, call)
    assert made.decay == r.Vector(rank=3) and made.scale == 0.5 and made.conv == 3
    assert made.shape() == (2, 4, 6, 10) and isinstance(made.output, r.PlainOutput)
    # Undeclared, `a` has the axes that the decay gives it.
    assert "neither" in reason(rule, "heads=4, decay=vector")
    assert point(rule, "heads=4, decay=none").decay == r.NoDecay()


REASONS = {
    "decay after": ("S += b * outer(k, v - S.T @ k); S = a * S; " + READ, "neither"),
    "undecayed error": ("S = a * S + b * outer(k, v - S.T @ k); " + READ, "neither"),
    "read before": ("o = S.T @ q; S = a * S + outer(k, v)", "what `o` reads"),
    "two-sided": ("decay w[value]; S = a * S * w + outer(k, v); " + READ, "2 decays, `a` and `w`"),
    "values": ("decay w[value]; S = S * w + outer(k, v); " + READ, "decays the channels of values"),
    "two keys": ("key e; S = S - b * outer(e, S.T @ e) + outer(k, v); " + READ,
                 "2 keys, `k` and `e`"),
    "values twice": ("value u; S += outer(k, v + u); " + READ, "2 values, `v` and `u`"),
    "no gate": ("S += outer(k, v - S.T @ k); " + READ, "with a gate b"),
    "three": ("S += 3 * b * outer(k, v - S.T @ k); " + READ, "at most 2 \\* b"),
    "gate per channel": ("gate c[key]; S += outer(c * k, v); " + READ, "one number per channel"),
    "twice as much": ("S = a * S + 2 * outer(k, v); " + READ, "2 times what"),
    "scaled output": ("S += outer(k, v); o = 2 * S.T @ q", "what `o` reads"),
    "skip per channel": ("weight d[value]; S += outer(k, v); o = S.T @ q + d * v", "what `o`"),
    "momentum": ("state S[key, value]; state M[key, value]; M = a * M + outer(k, v - S.T @ k); "
                 "S = S + b * M; " + READ, "its states are `S`, `M`"),
    "other sum": ("state S[key, value]; state z[key]; S = a * S + outer(k, v); z += k; "
                  "o = S.T @ q / (z @ q)", "not the sum of keys"),
    "sum of the delta rule": ("state S[key, value]; state z[key]; S += b * outer(k, v - S.T @ k); "
                              "z += b * k; o = S.T @ q / (z @ q)", "no normalizer"),
    "sum of values": ("state S[key, value]; state z[value]; S += outer(k, v); z += v; "
                      "o = S.T @ q + z", "no sum of keys"),
    "vector": ("state z[value]; z = b * z + v; o = z", "no `q`"),
    "longhorn": ("e = b / (1 + b * (k @ k)); S = (1 - e * k * k) * S + e * outer(k, v); " + READ,
                 "neither"),
    "gate and step": ("S = a * S + b * dt * outer(k, v); " + READ, "both a gate and a step"),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_what_is_no_point(name: str) -> None:
    equations, wanted = REASONS[name]
    assert wanted.replace("\\", "") in reason(equations)


NAMED = {
    "gated_deltanet(4, head_dim=8)": (
        "S = a * S; S += b * outer(k, v - S.T @ k); o = S.T @ q",
        "heads=4, key_dim=8, value_dim=16, conv=4, features=silu >> l2norm, values=silu, "
        "output=gated_rmsnorm",
    ),
    "gla(4, key_dim=6, value_dim=8)": (
        "decay a[key]; S = a * S + outer(k, v); o = S.T @ q",
        "heads=4, key_dim=6, value_dim=8, decay=vector(rank=16, temperature=16), "
        "output=gated_rmsnorm",
    ),
    "deltanet(4, head_dim=8)": (
        "S += b * outer(k, v - S.T @ k); o = S.T @ q",
        "heads=4, key_dim=8, conv=4, features=silu >> l2norm, values=silu, output=rmsnorm",
    ),
    "mamba2(4, head_dim=8, state=16)": (
        "weight d; S = a * S + dt * outer(k, v); o = S.T @ q + d * v",
        "heads=1, value_heads=4, key_dim=16, value_dim=8, conv=4, features=silu, values=silu, "
        "scale=1, output=gated_rmsnorm",
    ),
}


@pytest.mark.parametrize("named", NAMED)
def test_the_code_is_that_of_the_named_form(named: str, tmp_path: Path) -> None:
    """Byte for byte, apart from the copy of the spec."""
    equations, call = NAMED[named]
    rule = f"recurrence rule {{ state S[key, value]; {equations} }}\nlet mixed = rule({call})\n"
    model = "model m { vocab = 8; dim = 32; context = 8; layers = [mixed] * 2 }"
    files = []
    for folder, text in (("folder_1", rule), ("folder_2", f"\nlet mixed = {named}\n")):
        (tmp_path / folder).mkdir()
        spec = tmp_path / folder / "spec.mix"
        spec.write_text(text + model, "utf-8")
        compiled, diagnostics = compile_spec(spec)
        assert compiled is not None, [item.message for item in diagnostics]
        made = {name: code.replace(folder.encode(), b"") for name, code in compiled.files.items()}
        files.append({name: code for name, code in made.items() if not name.startswith("spec/")})
    assert files[0] == files[1]


def test_parameters_are_numbers_of_a_call() -> None:
    text = """
let half = 1/2
recurrence leaky(c, n: int = 2) {{
  state S[key, value]
  S = c * S + n * half * outer(k, v)
  o = S.T @ q
}}
model m {{ vocab = 8; dim = 32; context = 8; layers = [leaky(heads=4, {})] }}
"""
    project = open_text(text.format("c=1"))
    model = project.resolve(project.models["m"])
    assert model is not None
    (step,) = [step for step in model.layers[0].program.steps if step.op.kind == "mixer"]
    assert isinstance(step.op, r.Recurrence) and step.op.update == r.Additive()
    project = open_text(text.format("c=0.9, n=1"))
    model = project.resolve(project.models["m"])
    assert model is not None
    (step,) = [step for step in model.layers[0].program.steps if step.op.kind == "mixer"]
    assert isinstance(step.op, Scan)
    assert step.op.rule.lines[0] == "S = 0.9 * S + 1 * 0.5 * outer(k, v)"


def test_names_of_python_are_names() -> None:
    op, _ = resolved(
        "state lambda[key, value]; key if; value if_; class = outer(if, v + if_); "
        "lambda = a * lambda + outer(k, v) + class; o = lambda.T @ q"
    )
    assert isinstance(op, Scan)
    assert [state.name for state in op.rule.states] == ["lambda_"]
    assert {"if_", "if__"} <= {operand.name for operand in op.rule.operands}


def test_what_the_output_does_not_need_is_left_out() -> None:
    op, diagnostics = resolved(
        "state S[key, value]; state z[key]; key e; u = v + v; z += e; "
        "S = S - outer(k, S.T @ k); S += outer(k, v); o = S.T @ q"
    )
    assert isinstance(op, Scan)
    assert [state.name for state in op.rule.states] == ["S"] and len(op.rule.lines) == 3
    assert {operand.name for operand in op.rule.operands} == {"q", "k", "v"}
    told = [item.message for item in diagnostics if item.code == "MX210"]
    assert len(told) == 3  # z, e, u


@pytest.mark.parametrize(
    "equations",
    [
        "S = " + " + ".join(["a * S"] * 3000) + "; " + READ,
        "S = " + "(a + b) * " * 150 + "S; " + READ,
        "c0 = a + b; " + "".join(f"c{i} = c{i - 1} * c{i - 1}; " for i in range(1, 90))
        + "S = c89 * S; " + READ,
        "c0 = a + b; " + "".join(f"c{i} = tanh(c{i - 1} * c{i - 1}) + b; " for i in range(1, 300))
        + "S = c299 * S; " + READ,
        "S = " + "I @ " * 50 + "S; " + READ,
        "S = S + " + "outer(k, k) @ " * 120 + "S; " + READ,
    ],
    ids=["sum", "product", "squares", "functions", "identities", "chain"],
)  # fmt: skip
def test_long_equations_take_no_time(equations: str) -> None:
    start = time.perf_counter()
    resolved(equations)
    assert time.perf_counter() - start < 3
