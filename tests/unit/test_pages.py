"""Every code has a page, and its example provokes exactly that code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mixerlang
from mixerlang.diagnostics import CODES
from mixerlang.pipeline import check

PAGES = Path(mixerlang.__file__).parent / "diagnostics" / "pages"

TOLD = {"MX002", "MX003", "MX006", "MX007", "MX090", "MX207", "MX208"}
"""Codes about bytes, several files, folders and the command line: told in prose."""
ALONE = {"MX001", "MX004", "MX005"}
"""Codes about other files: an example without those files cannot be mended."""


def text(code: str) -> str:
    return (PAGES / f"{code}.md").read_text("utf-8")


def examples(code: str) -> list[str]:
    return re.findall(r"```mix\n(.*?)```", text(code), re.S)


def found(spec: str, folder: Path) -> set[str]:
    path = folder / "spec.mix"
    path.write_text(spec, "utf-8")
    _, diagnostics = check(path)
    return {item.code for item in diagnostics}


def test_one_page_for_each_code() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_form(code: str) -> None:
    page = text(code)
    assert page.startswith(f"# {code}: {CODES[code].title}\n\n")
    assert len(page.splitlines()) < 60
    assert len(examples(code)) == (0 if code in TOLD else 1 if code in ALONE else 2)
    assert "```text\n" in page or code not in TOLD


@pytest.mark.parametrize("code", sorted(set(CODES) - TOLD))
def test_example(code: str, tmp_path: Path) -> None:
    faulty, *mended = examples(code)
    assert found(faulty, tmp_path) == {code}
    for spec in mended:
        assert found(spec, tmp_path) == set()
