"""Every code has a page, and its example provokes exactly that code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mixerlang
from mixerlang.codegen.compile import compile_spec
from mixerlang.diagnostics import CODES
from mixerlang.pipeline import check

PAGES = Path(mixerlang.__file__).parent / "diagnostics" / "pages"

TOLD = {"MX002", "MX003", "MX006", "MX007", "MX090", "MX207", "MX208", "MX602", "MX603"}
"""Codes about bytes, several files, folders, GPUs and the command line: told in prose."""
ALONE = {"MX001", "MX004", "MX005"}
"""Codes about other files: an example without those files cannot be mended."""


def text(code: str) -> str:
    return (PAGES / f"{code}.md").read_text("utf-8")


def examples(code: str) -> list[str]:
    return re.findall(r"```mix\n(.*?)```", text(code), re.S)


def found(code: str, spec: str, folder: Path) -> set[str]:
    """What is told of a spec; kernels are first looked at when it is compiled."""
    path = folder / "spec.mix"
    path.write_text(spec, "utf-8")
    _, diagnostics = compile_spec(path) if code.startswith("MX6") else check(path)
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
    assert found(code, faulty, tmp_path) == {code}
    for spec in mended:
        assert found(code, spec, tmp_path) == set()
