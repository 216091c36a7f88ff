"""Documents that are generated, or that hold specs, stay true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from mixerlang.cli.app import app
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


def consoles() -> list[tuple[str, str]]:
    """Every command of a ```console block, with what the page says it answers."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.S):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, answer = part.partition("\n")
                found.append((command, answer))
    return found


@pytest.mark.parametrize("command", [command for command, _ in consoles()])
def test_commands_are_understood(command: str) -> None:
    """Names, options and values: all but what the command does."""
    program, name, *arguments = shlex.split(command)
    assert program == "mixerlang"
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    group.commands[name].make_context(name, arguments)


def tour() -> str:
    return (ROOT / "docs/tour.md").read_text()


def shown(answer: str) -> str:
    """What matches an answer: `...` stands for lines, and the number of files may change."""
    lines = answer.strip().splitlines()
    text = "\n".join("(?:.*\n)*?.*" if line.strip() == "..." else re.escape(line) for line in lines)
    return re.sub(r"\d+\\ files", r"\\d+\\ files", text)


@pytest.fixture
def at_the_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the tour, with its spec."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hybrid.mix").write_text(re.findall(r"```mix\n(.*?)```", tour(), re.S)[0])
    return tmp_path


def test_the_tour_answers_as_it_says(at_the_tour: Path) -> None:
    spec = at_the_tour / "hybrid.mix"
    mended = spec.read_text()
    ran = 0
    for command, answer in consoles():
        if "hybrid.mix" not in command or "train" in command:
            continue
        spec.write_text(mended.replace("window(w)", "windw(w)") if "windw" in answer else mended)
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert re.fullmatch(shown(answer), result.output.strip()), command
        ran += 1
    assert ran == 4


@pytest.mark.parametrize(
    ("command", "answer"),
    [each for each in consoles() if each[0] in (ROOT / "docs/analyze.md").read_text()],
)
def test_the_page_of_costs_answers_as_it_says(
    command: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert answer.strip() and re.fullmatch(shown(answer), result.output.strip()), result.output


def test_the_code_of_the_tour_runs(at_the_tour: Path) -> None:
    import mixerlang

    mixerlang.compile("hybrid.mix", "models/hybrid")
    written = (at_the_tour / "models/hybrid/model.py").read_text()
    excerpt, program = re.findall(r"```python\n(.*?)```", tour(), re.S)
    assert re.search(shown(excerpt), written)
    checkpoint = at_the_tour / re.findall(r'model\.load\("(.*?)"\)', program)[0]
    checkpoint.parent.mkdir(parents=True)
    mixerlang.load("hybrid.mix").save(checkpoint)
    exec(program, {})
