"""Tables for documents: Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "µ": r"\textmu{}", "…": r"\dots{}",
}  # fmt: skip
MARKDOWN = {"\\": "\\\\", "|": r"\|", "_": r"\_", "*": r"\*", "<": "&lt;", "`": r"\`"}


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """The first `words` columns to the left, numbers to the right."""
    rule = ["---" if place < words else "---:" for place in range(len(headings))]
    escaped = [[_escaped(cell, MARKDOWN) for cell in row] for row in (headings, *rows)]
    lines = [escaped[0], rule, *escaped[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A tabular with the rules of the booktabs package."""
    columns = "".join("l" if place < words else "r" for place in range(len(headings)))
    head, *body = (
        " & ".join(_escaped(cell, LATEX) for cell in row) + r" \\" for row in (headings, *rows)
    )
    return "\n".join([
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body,
        r"\bottomrule", r"\end{tabular}",
    ])  # fmt: skip


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in text)


MARKUPS = {"markdown": markdown, "latex": latex}
