"""An analysis as an HTML page that needs nothing else: tables, plots and formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from ..algebra import number
from ..diagnostics.terminal import clean
from . import formulas
from .fits import fitting_line
from .kinds import Kind, kinds, outside
from .lengths import spelled
from .metrics import length_of
from .plot import Line, Plot
from .report import Analysis, analyze
from .roofline import Latency, latency
from .table import HEADINGS, WORDS, formula_titles, head_lines, row_cells, rows
from .units import binary, seconds, si

LENGTHS = tuple(2**power for power in range(8, 21))
"""Of the plots: 256 to 1M."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; color: #1f2328;
  background: #fff; margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p, .quiet { color: #59636e; margin: .2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #d1d9e0; }
th.word, td.word { text-align: left; } .sum tr:last-child td { font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr));
  gap: 1rem; } .plots svg { width: 100%; height: auto; border: 1px solid #d1d9e0;
  border-radius: 6px; }
code { font: .82rem ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0 0 0 1rem; overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; font-size: 11px; }
  .plots { grid-template-columns: 1fr 1fr; } .plots svg, tr { break-inside: avoid; }
  .wide { overflow: visible; } th, td { padding: .15rem .4rem; } }
"""


def page(analysis: Analysis, gpu: Latency, count: str = "useful") -> str:
    """gpu: times at the analysis's own length; those of the plots are on the same device."""
    title = escape(clean(analysis.model))
    cells = [row_cells(kind, count) for kind in rows(analysis)]
    body = [
        f"<h1>{title}</h1>",
        *(f"<p>{escape(line)}</p>" for line in head_lines(analysis, count)),
        *_section("Per kind of layer", [_table(HEADINGS, cells, WORDS, "sum")]),
        *_section("Over the length", ['<div class="plots">', *_plots(analysis, gpu, count),
                                      "</div>"]),
        *_section("What takes the time", [_dominant(analysis, gpu)]),
        *_section("How long a context fits", [f"<p>{escape(fitting_line(analysis, most))}</p>"
                                              for most in (24 * 2**30, 80 * 2**30)]),
        *_section("As expressions", [_formulas(kind, count) for kind in rows(analysis)]),
        *_section("Sources", [_sources(gpu)]),
    ]  # fmt: skip
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}: what it costs</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        *body, "</body>\n</html>\n",
    ])  # fmt: skip


def _section(title: str, body: Sequence[str]) -> list[str]:
    return [f"<section><h2>{title}</h2>", *body, "</section>"]


def _table(
    headings: Sequence[str], lines: Sequence[Sequence[str]], words: int, style: str = ""
) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        styled = (f'<{tag}{" class=word" if place < words else ""}>{escape(clean(cell))}</{tag}>'
                  for place, cell in enumerate(cells))
        return f"<tr>{''.join(styled)}</tr>"

    body = [row(headings, "th"), *(row(line, "td") for line in lines)]
    return f'<div class="wide {style}"><table>{"".join(body)}</table></div>'


# ------------------------------------------------------------------------------------------- plots


def plots(analysis: Analysis, count: str = "useful") -> Iterator[Plot]:
    """FLOPs and bytes by kind of layer, at the lengths of LENGTHS."""
    parts = [*kinds(analysis), *outside(analysis)]
    for title, key, spell in (
        (f"{count} FLOPs of a prefill", f"flops.forward.{count}", si),
        (f"{count} FLOPs of a decoding step", f"flops.step.{count}", si),
        ("bytes of the cache", "cache_bytes", binary),
        ("bytes kept for backward", "activation_bytes", binary),
    ):
        lines = (Line(part.name, _values(analysis, part, key)) for part in parts)
        yield Plot(title, LENGTHS, [line for line in lines if any(line.values)], spell,
                   16 if spell is binary else 10)


def _values(analysis: Analysis, kind: Kind, key: str) -> list[float]:
    name = length_of(key)
    return [number(kind.formula[key], **{"B": analysis.batch, "T": 1, "L": 1, name: length})
            for length in LENGTHS]


def _plots(analysis: Analysis, gpu: Latency, count: str) -> Iterator[str]:
    yield from (plot.svg() for plot in plots(analysis, count))
    times = _times(analysis, gpu)
    wanted: dict[str, Callable[[Latency], float]] = {
        "prefill": lambda each: each.prefill,
        "training step": lambda each: each.training,
        "decoding step": lambda each: each.step,
    }
    lines = [Line(name, [time(each) for each in times]) for name, time in wanted.items()]
    yield Plot(f"seconds on {gpu.device.name}", LENGTHS, lines, seconds).svg()


def _times(analysis: Analysis, gpu: Latency) -> list[Latency]:
    return [
        latency(analyze(analysis.graph, analysis.batch, length, analysis.dtype, analysis.backend),
                gpu.device)
        for length in LENGTHS
    ]  # fmt: skip


def _dominant(analysis: Analysis, gpu: Latency) -> str:
    """By length, the kind that takes most of a pass, and its share."""
    times = _times(analysis, gpu)[::2]
    lines = []
    for name, title in (("forward", "prefill"), ("step", "decoding step")):
        cells = [title]
        for each in times:
            kind, time = max(each.times[name].items(), key=lambda item: item[1].seconds)
            cells.append(f"{kind} {time.seconds / each.total(name).seconds:.0%}")
        lines.append(cells)
    return _table(["", *map(spelled, LENGTHS[::2])], lines, 1)


def _formulas(kind: Kind, count: str) -> str:
    found = []
    for title, key in formula_titles(count).items():
        texts = formulas.lines(key, kind.formula[key])
        if kind.formula[key] != 0:
            found.append(f"<dt>{escape(title)}</dt>")
            found += [f"<dd><code>{escape(text)}</code></dd>" for text in texts]
    name = escape(clean(kind.name))
    return f"<details open><summary>{name}</summary><dl>{''.join(found)}</dl></details>"


def _sources(gpu: Latency) -> str:
    lines = [[name, source] for name, source in gpu.device.sources.items()]
    items = "".join(f"<li>{escape(name)}: {escape(source)}</li>" for name, source in lines)
    return f'<p>{escape(gpu.device.name)}</p><ul class="quiet">{items}</ul>'
