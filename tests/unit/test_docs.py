"""Documents that are generated, or that hold specs, stay true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixerlang.semantics import open_text
from mixerlang.semantics.reference import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_reference_is_current() -> None:
    assert (ROOT / "docs/reference.md").read_text() == reference(), (
        "run python -m mixerlang.semantics.reference > docs/reference.md"
    )


def examples() -> list[tuple[str, str]]:
    """Every ```mix block of the documents."""
    found = []
    for page in PAGES:
        for number, text in enumerate(re.findall(r"```mix\n(.*?)```", page.read_text(), re.S)):
            found.append((f"{page.relative_to(ROOT)}-{number}", text))
    return found


@pytest.mark.parametrize(("name", "text"), examples(), ids=[name for name, _ in examples()])
def test_examples_check(name: str, text: str) -> None:
    """A block of a document is a file without errors, and its models expand."""
    project = open_text(text)
    for model in project.models.values():
        project.resolve(model)
    assert not project.diagnostics.errors, [d.message for d in project.diagnostics]


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
