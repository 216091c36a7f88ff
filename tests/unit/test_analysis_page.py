"""The page of costs: self-contained, well-formed, and true."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from counting import graph_of
from typer.testing import CliRunner

from mixerlang.analysis import analyze, latency_on, page
from mixerlang.analysis.page import LENGTHS, plots
from mixerlang.analysis.plot import Line, Plot
from mixerlang.analysis.units import si
from mixerlang.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").glob("*/lalte*.mix"))
VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Raises where an element is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_page_stands_alone(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "costs.html"
    answer = CliRunner().invoke(app, ["analyze", str(path), "--html", str(target), "--gpu", "a100"])
    assert answer.exit_code == 0 and answer.output.strip() == str(target)
    text = target.read_text("utf-8")
    reader = Balance()
    reader.feed(text)
    assert not reader.open
    assert not re.search(r"(src|href|url)\\s*[=(]", text.replace("http://www.w3.org/2000/svg", ""))
    assert "NVIDIA A100" in reader.text and "lte" in reader.text
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(svg)
    assert text.count("<svg") == 5


def test_a_page_escapes_what_a_spec_says(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_text("model m { param p: int = 3; vocab = p; dim = 8; context = 9; "
                    "layers = [attention(heads=2)] }")
    analysis = analyze(graph_of(path))
    analysis.params["p"] = "<script>alert(1)</script>"
    assert "<script" not in page(analysis, latency_on(analysis, "h100"))


def test_plots_are_of_the_numbers() -> None:
    graph = graph_of(ROOT / "specs/paper/lalte_400m.mix")
    first = next(iter(plots(analyze(graph, 2), "dense")))
    place = LENGTHS.index(4096)
    drawn = sum(line.values[place] for line in first.lines)
    assert drawn == analyze(graph, 2, 4096).total["flops.forward.dense"]


def test_lines_of_a_plot_stay_inside() -> None:
    """Whatever the values, and however many lines: labels too."""
    lines = [Line(f"a long name of line {index}", [0, 10.0**index, 3 * 10.0**index])
             for index in range(12)]  # fmt: skip
    for shown in (lines, lines[:1], [Line("nothing", [0, 0, 0])], [Line("same", [7, 7, 7])]):
        root = ElementTree.fromstring(Plot("a < b & c", (1, 2, 4), shown, si).svg())
        for node in root.iter():
            for number in re.findall(r"-?\\d+\\.\\d", node.get("d") or ""):
                assert -0.1 <= float(number) <= 640
            if node.tag.endswith("text"):
                assert 0 <= float(node.get("y", "0")) <= 340
