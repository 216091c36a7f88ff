"""Faulty specs give exactly the diagnostics that their comments expect.

A comment of a line in tests/cases expects what is wrong in that line: a code and the text that it
points at, `#2` for the second place with this text; or a code and a range of lines and columns,
for what has no text or spans lines:

    let a = window(0) | windw(0)  # MX302 `0`, MX201 `windw`
    # MX103 2:9-4:1
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixerlang.diagnostics import CODES
from mixerlang.pipeline import check
from mixerlang.semantics import open_project
from mixerlang.source import Source

CASES = Path(__file__).parents[1] / "cases"
PATHS = sorted(CASES.glob("*.mix"))

Place = tuple[int, int]
Expected = tuple[str, str, Place, Place]

COMMENT = re.compile(r"#\s*(MX\d{3} .*)$")
ITEM = re.compile(r"(MX\d{3}) (?:`(.+?)`(?:#(\d+))?|(\d+):(\d+)-(\d+):(\d+))(?:, |$)")

ELSEWHERE = {
    "MX002": "test_files.py",
    "MX003": "test_files.py",
    "MX007": "test_codegen_folder.py",
    "MX090": "test_hostile.py",
    "MX207": "test_settings.py",
    "MX208": "test_settings.py",
    "MX601": "test_cli_kernels.py",
    "MX602": "test_codegen_build.py",
    "MX603": "test_codegen_build.py",
}
"""Codes about bytes, sizes, folders, counts, the command line and compiled kernels have tests of
their own."""


def expectations(source: Source) -> Iterator[Expected]:
    for number, line in enumerate(source.text.split("\n"), 1):
        comment = COMMENT.search(line)
        if comment is None:
            continue
        end = 0
        for item in ITEM.finditer(comment[1]):
            end = item.end()
            code, text, nth, *place = item.groups()
            if text is None:
                a, b, c, d = map(int, place)
                yield code, source.path, (a, b), (c, d)
            else:
                column = nth_column(line[: comment.start()], text, int(nth or 1))
                yield code, source.path, (number, column), (number, column + len(text))
        assert end == len(comment[1]), f"{source.path}:{number}: {comment[1][end:]!r} is no code"


def nth_column(line: str, text: str, nth: int) -> int:
    """The column of the nth place of a text in a line, from 1."""
    at = -1
    for _ in range(nth):
        at = line.index(text, at + 1)
    return at + 1


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    _, diagnostics = check(path)
    found = sorted(
        (item.code, item.span.source.path, item.span.begin, item.span.finish)
        for item in diagnostics
        if item.span is not None
    )
    assert len(found) == len(diagnostics)
    expected = [e for source in open_project(str(path)).sources for e in expectations(source)]
    assert found == sorted(expected)


def test_there_are_enough_cases() -> None:
    assert len(PATHS) >= 70


def test_every_code_has_a_case() -> None:
    texts = "\n".join(path.read_text("utf-8") for path in CASES.rglob("*.mix"))
    missing = set(CODES) - set(re.findall(r"MX\d{3}", texts)) - set(ELSEWHERE)
    assert not missing
    assert not set(ELSEWHERE) - set(CODES)
    for code, name in ELSEWHERE.items():
        assert code in (Path(__file__).parent / name).read_text("utf-8"), (code, name)
