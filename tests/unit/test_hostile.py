"""Absurd and hostile specs end in a diagnostic, soon and within little memory."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mixerlang.diagnostics import LIMIT, Diagnostics, Severity
from mixerlang.ir.graph import Graph
from mixerlang.pipeline import graph_of
from mixerlang.semantics import open_text

ROOT = Path(__file__).resolve().parents[2]
FIELDS = "vocab = 256; dim = 128; context = 256"


def model(layers: str, items: str = "", name: str = "m") -> str:
    return f"model {name} {{\n  {FIELDS}\n{items}\n  layers = {layers}\n}}\n"


def run(text: str) -> tuple[list[Graph | None], Diagnostics]:
    project = open_text(text)
    return [graph_of(project, name) for name in project.models], project.diagnostics


@contextmanager
def little_memory() -> Iterator[None]:
    """At most 256 MiB beyond what this process holds already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    allowed = pages * resource.getpagesize() + 256 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (allowed, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def codes(text: str, seconds: float = 2.0) -> list[str]:
    """What is wrong with a text, found in little memory and CPU time.

    A second, and one more for a machine that is busy; the best of three for the same reason.
    """
    for _ in range(3):
        start = time.process_time()
        with little_memory():
            _, diagnostics = run(text)
        taken = time.process_time() - start
        if taken < seconds:
            break
    assert taken < seconds
    assert len(diagnostics) <= LIMIT + 1
    return [item.code for item in diagnostics]


def lines(count: int, line: Callable[[int], str]) -> str:
    return "".join(line(i) + "\n" for i in range(count))


def tower(height: int) -> str:
    """f1(x) = f0(f0(x)) and so on: doubles without a loop."""
    return "let f0(x) = x + x\n" + lines(height, lambda i: f"let f{i + 1}(x) = f{i}(f{i}(x))")


def wide(height: int) -> str:
    """g1(x) = g0(x) + g0(x) and so on: call-by-need does not help here."""
    return "let g0(x) = x\n" + lines(height, lambda i: f"let g{i + 1}(x) = g{i}(x) + g{i}(x)")


def doubled(height: int, term: str, operation: str) -> str:
    """a1 = a0 op a0 and so on: shared terms that expand."""
    step = re.sub(r"\ba\b", "a{0}", operation)
    return f"let a0 = {term}\n" + lines(height, lambda i: f"let a{i + 1} = " + step.format(i))


ATTENTION = "attention(4)"
ABSURD = {
    "a huge repeat": (model(f"[{ATTENTION}] * 1_000_000_000"), "MX012"),
    "the largest repeat": (model(f"[{ATTENTION}] * 9223372036854775807"), "MX012"),
    "nested repeats": (model(f"((([{ATTENTION}] * 1000) * 1000) * 1000) * 1000"), "MX012"),
    "repeats of lets": (
        model("a9", doubled(9, f"[{ATTENTION}] * 100", "a * 10")), "MX012"),
    "nothing, often": (model("[] * 9223372036854775807"), "MX302"),
    "a tower of functions": (tower(40) + model(f"[{ATTENTION}] * f40(1)"), "MX010"),
    "a wide tower": (wide(40) + model(f"[{ATTENTION}] * g40(1)"), "MX011"),
    "a wide tower on nothing": (
        wide(20).replace("g0(x) = x", "g0(x) = y") + model(f"[{ATTENTION}] * g20(1)"), "MX201"),
    "a wide tower of unknown arguments": (
        wide(20).replace("g0(x) = x", "g0(x) = attention(hats=x)") + model("[g20(1)]"), "MX202"),
    "a wide tower of bad arguments": (
        wide(20).replace("g0(x) = x", "g0(x) = attention(-x)") + model("[g20(1)]"), "MX302"),
    "heads of a huge prime": (
        model("[attention(65536)] * 9 + [" + f"{ATTENTION}, attention(65535), " * 1000 + "]")
        .replace("dim = 128", "dim = 2147483647"), "MX402"),
    "shared mixers": (doubled(30, ATTENTION, "mean(a, a)") + model("[a30]"), "MX011"),
    "shared chains": (doubled(30, ATTENTION, "a >> a") + model("[a30]"), "MX012"),
    "shared keeps": (
        doubled(30, "window(4)", "a | a") + model("[attention(4, keep=a30)]"), "MX012"),
    "shared lists": (doubled(30, f"[{ATTENTION}]", "a + a") + model("a30"), "MX012"),
    "shared gated keeps": (
        doubled(30, "full", "gated(a, a)") + model("[attention(4, keep=a30)]"), "MX310"),
    "shared features": (
        doubled(9, "taylor", "a >> a") + model("[recurrence(4, features=a9)]"), "MX407"),
    "huge numbers": (model(f"[{ATTENTION}]", "dropout = 1e300 * 1e300"), "MX013"),
    "precise numbers": (
        model(f"[{ATTENTION}]", doubled(20, "1/3", "a * a") + "dropout = a20"), "MX013"),
    "a literal of a million digits": (model(f"[{ATTENTION}] * 1{'0' * 100_000}"), "MX013"),
    "a huge exponent": (model(f"[{ATTENTION}] * 1e999999999"), "MX013"),
    "recursion": ("let f(x) = f(x)\n" + model(f"[{ATTENTION}] * f(1)"), "MX206"),
    "mutual recursion": (
        "mixer f(x) = sum(g(x), g(x))\nmixer g(x) = sum(f(x), f(x))\n" + model("[f(4), g(4)]"),
        "MX206"),
    "self application": ("let w(f) = f(f)\n" + model("[w(w)]"), "MX206"),
    "nested calls": (
        "let f(x) = x\n" + model(f"{'f(' * 90}[{ATTENTION}]{')' * 90}"), "MX010"),
    "a block that doubles": (
        "block b(mixer, ffn) {\n" + lines(2000, lambda i: "  x += x") + "}\n"
        + model(f"[{ATTENTION}] * 10_000", "block = b"), "MX012"),
    "a block that widens": (
        "block b(mixer, ffn) {\n" + lines(500, lambda i: "  x = concat(x, x)") + "}\n"
        + model(f"[{ATTENTION}]", "block = b"), "MX013"),
    "a block of slow steps": (
        "block b(mixer, ffn) {\n" + lines(8000, lambda i: "  x = mixer(x)") + "}\n"
        + doubled(3, ATTENTION, "mean(a, a)") + model("[a3] * 10_000", "block = b"), "MX011"),
    "exceptions": (
        model(f"[{ATTENTION}] * 10_000", lines(2000, lambda i: f"layers[::] = {ATTENTION}")),
        "MX011"),
    "many slow models": (
        wide(30) + lines(500, lambda i: model(f"[{ATTENTION}] * g30(1)", name=f"m{i}")), "MX011"),
    "an absurd range": (
        model("[attention(4, keep=window(w))]", "param w: int = 0 in 0..9223372036854775807"),
        "MX302"),
    "a range of ranges": (
        model(f"[{ATTENTION}]", "param w = 1 in 9223372036854775806 + 1 .. 1"), "MX302"),
}


@pytest.mark.parametrize(("text", "code"), ABSURD.values(), ids=ABSURD)
def test_absurd(text: str, code: str) -> None:
    assert code in codes(text)


def test_many_models_share_one_bound() -> None:
    text = lines(300, lambda i: model(f"[{ATTENTION}] * 10_000", name=f"m{i}").replace("\n", "; "))
    assert "MX012" in codes(text, seconds=4)


def test_chained_lets() -> None:
    chain = lines(5000, lambda i: f"let a{i} = a{i + 1}") + f"let a5000 = {ATTENTION}\n"
    assert codes(chain + model("[a0]")) == ["MX010"]
    assert codes(chain + model("[a4950]")) == []


def test_long_sums_do_not_nest() -> None:
    assert codes(model(" + ".join([f"[{ATTENTION}]"] * 150))) == []


def test_a_call_within_a_hundred_calls() -> None:
    """As deep as the parser lets through, from as deep a stack as a notebook's."""
    deep = "sum(" * 48 + ATTENTION + ")" * 48
    text = model(f"[{deep}]")

    def below(frames: int) -> list[str]:
        return below(frames - 1) if frames else codes(text)

    assert below(150) == []
    assert below(sys.getrecursionlimit() - 200) == ["MX010"]


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "#\n#\n", "\ufeff", ";;\n;"])
def test_empty(text: str) -> None:
    assert codes(text) == []


def test_at_most_a_hundred_diagnostics() -> None:
    found = codes(lines(4000, lambda i: f"let a{i} = unknown{i}"))
    assert found == ["MX201"] * LIMIT + ["MX090"]
    found = codes(lines(4000, lambda i: "let = 3"))
    assert found == ["MX102"] * LIMIT + ["MX090"]


def test_warnings_leave_room_for_errors() -> None:
    unused = lines(150, lambda i: f"let a{i} = 3")
    text = model(f"[{ATTENTION}]", unused, "first") + model("[attention(3)]", name="second")
    graphs, diagnostics = run(text)
    assert len(graphs) == 2 and graphs[1] is None
    assert [item.code for item in diagnostics if item.severity is Severity.ERROR] == ["MX402"]
    assert diagnostics.sorted()[-1].message == "51 more diagnostics are not shown"


def test_many_unknown_names_among_many_names() -> None:
    """Looking for what was meant stays bounded."""
    known = lines(2500, lambda i: f"let some_name_{i} = 3")
    assert len(codes(known + lines(500, lambda i: f"let b{i} = some_nmae_{i}"))) == LIMIT + 1


def test_labels_and_params_that_are_code() -> None:
    """Names of a spec are identifiers, so nothing that they reach can be more than a name."""
    text = model("[__import__, lambda]", "let __import__ = attention(4)\n let lambda = local(4, 8)")
    (graph,), diagnostics = run(text)
    assert graph is not None and not len(diagnostics)
    assert [layer.label for layer in graph.layers] == ["__import__", "lambda"]
    assert all(node.id.replace(".", "_").isidentifier() for node in graph)


LALTE = (ROOT / "specs/paper/lalte_400m.mix").read_text("utf-8")


def timed(layers: int, tries: int = 3) -> float:
    """CPU seconds from text to verified graph, the best of some tries."""
    text = LALTE.replace("* 12", f"* {layers // 2}")
    best = float("inf")
    for _ in range(tries):
        start = time.process_time()
        (graph,), _ = run(text)
        best = min(best, time.process_time() - start)
        assert graph is not None and len(graph.layers) == layers
    return best


def test_24_layers_take_milliseconds() -> None:
    timed(24)  # the prelude is parsed once per process
    assert timed(24) < 0.02


def test_1000_layers_take_less_than_a_second() -> None:
    assert timed(1000) < 1


def test_10000_layers_are_the_limit() -> None:
    assert timed(10_000, tries=1) < 5
    assert codes(LALTE.replace("* 12", "* 5001")) == ["MX012"]
