"""Files as they come: missing, huge, binary, behind links, with paths of every kind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mixerlang.diagnostics import Diagnostic
from mixerlang.pipeline import build_graph, check
from mixerlang.semantics import open_project, split_spec

MODEL = "model m { vocab = 256; dim = 128; context = 256; layers = [a] }\n"


def told(path: object, root: Path | None = None) -> list[Diagnostic]:
    start = time.process_time()
    graph, diagnostics = build_graph(str(path), root=root)
    assert time.process_time() - start < 1
    assert graph is None or not diagnostics.errors
    return diagnostics.sorted()


def codes(path: object, root: Path | None = None) -> list[str]:
    return [item.code for item in told(path, root)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_missing_file(tmp_path: Path) -> None:
    (item,) = told(tmp_path / "none.mix")
    assert item.code == "MX001" and item.span is None and "does not exist" in item.message


def test_directory(tmp_path: Path) -> None:
    (item,) = told(tmp_path)
    assert item.code == "MX001" and "is a directory" in item.message


def test_device() -> None:
    assert codes(os.devnull) == ["MX001"]


NO_PATHS = ["a\nb\x1b[31m.mix", "a\0b.mix", "\ud800.mix", "\udcff", "x" * 5000]


@pytest.mark.parametrize("path", NO_PATHS)
def test_paths_that_are_no_paths(path: str) -> None:
    (item,) = told(path)
    assert item.code == "MX001" and item.message.isprintable()


def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mix", "")
    path.chmod(0)
    if not os.access(path, os.R_OK):
        assert codes(path) == ["MX001"]


def test_empty_path_and_no_model(tmp_path: Path) -> None:
    assert codes("") == ["MX001"]
    assert codes(write(tmp_path / "a.mix", "# only this")) == ["MX207"]
    _, diagnostics = check(tmp_path / "a.mix")
    assert not len(diagnostics)


def test_ten_megabytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mix", "let a = 3\n" * 1_000_000)
    assert codes(path) == ["MX003"]


def test_just_small_enough(tmp_path: Path) -> None:
    text = "let a = attention(4)\n" + MODEL
    path = write(tmp_path / "a.mix", text + "#" * (128 * 1024 - len(text)))
    assert codes(path) == []
    assert codes(write(path, path.read_text() + "#")) == ["MX003"]


def test_imports_are_bounded_together(tmp_path: Path) -> None:
    names = [f"part{i}.mix" for i in range(6)]
    for name in names:
        write(tmp_path / name, "#" * 100_000)
    text = "".join(f'import "{name}"\n' for name in names)
    found = told(write(tmp_path / "a.mix", text + "let a = attention(4)\n" + MODEL))
    assert [(item.code, item.span.begin[0]) for item in found if item.span] == [("MX003", 6)]


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    path.write_bytes(bytes(range(256)) * 100)
    (item,) = told(path)
    assert item.code == "MX002" and "byte 128" in item.message
    path.write_bytes(b"\0" * 1000)
    assert set(codes(path)) <= {"MX101", "MX207"}


def test_not_utf8_import(tmp_path: Path) -> None:
    (tmp_path / "b.mix").write_bytes("let größe = 3".encode("latin-1"))
    found = told(write(tmp_path / "a.mix", 'import "b.mix"\nlet a = attention(4)\n' + MODEL))
    assert [(item.code, item.span.text) for item in found if item.span] == [("MX002", '"b.mix"')]


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "a.mix"
    text = f"let a = attention(4)\n{MODEL}".replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert codes(path) == []


def test_import_through_a_link_out_of_the_project(tmp_path: Path) -> None:
    write(tmp_path / "outside/b.mix", "let a = attention(4)\n")
    inside = write(tmp_path / "project/a.mix", 'import "b.mix"\n' + MODEL)
    (inside.parent / "b.mix").symlink_to(tmp_path / "outside/b.mix")
    assert "MX004" in codes(inside)
    assert codes(inside, root=tmp_path) == []


def test_import_of_a_parent_folder_needs_a_root(tmp_path: Path) -> None:
    write(tmp_path / "b.mix", "let a = attention(4)\n")
    inside = write(tmp_path / "models/a.mix", 'import "../b.mix"\n' + MODEL)
    assert "MX004" in codes(inside)
    assert codes(inside, root=tmp_path) == []


def test_a_project_behind_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real/b.mix", "let a = attention(4)\n")
    write(tmp_path / "real/a.mix", 'import "b.mix"\n' + MODEL)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert codes(tmp_path / "link/a.mix") == []


def test_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "b.mix").symlink_to(tmp_path / "b.mix")
    found = codes(write(tmp_path / "a.mix", 'import "b.mix"\nlet a = attention(4)\n' + MODEL))
    assert found == ["MX001"]


def test_deep_imports(tmp_path: Path) -> None:
    for i in range(120):
        write(tmp_path / f"f{i}.mix", f'import "f{i + 1}.mix"\n')
    write(tmp_path / "f120.mix", "")
    write(tmp_path / "a.mix", 'import "f0.mix"\nlet a = attention(4)\n' + MODEL)
    (item,) = told(tmp_path / "a.mix")
    assert item.code == "MX010" and item.span is not None
    assert Path(item.span.source.path).name == "f98.mix"


def test_towers_of_diamonds(tmp_path: Path) -> None:
    """40 levels, each importing both files of the next: 81 files, not 2^40 walks."""
    for i in range(40):
        both = f'import "l{i + 1}.mix"\nimport "r{i + 1}.mix"\n'
        write(tmp_path / f"l{i}.mix", both)
        write(tmp_path / f"r{i}.mix", both)
    write(tmp_path / "l40.mix", "")
    write(tmp_path / "r40.mix", "")
    write(tmp_path / "a.mix", 'import "l0.mix"\nlet a = attention(4)\n' + MODEL)
    assert codes(tmp_path / "a.mix") == []
    assert len(open_project(str(tmp_path / "a.mix")).sources) == 1 + 1 + 80


def test_cycle_of_three_is_told_where_it_closes(tmp_path: Path) -> None:
    for name, other in ("ab", "bc", "ca"):
        write(tmp_path / f"{name}.mix", f'import "{other}.mix"\n')
    found = [item for item in told(tmp_path / "a.mix") if item.code != "MX207"]
    assert [(item.code, item.message) for item in found] == [
        ("MX005", "imports form a cycle: a.mix -> b.mix -> c.mix -> a.mix")
    ]


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("a.mix", ("a.mix", None)),
        ("a.mix:m", ("a.mix", "m")),
        ("c:a.mix:m_2", ("c:a.mix", "m_2")),
        ("a.mix:not-a-name", ("a.mix:not-a-name", None)),
        (":m", (":m", None)),
        (Path("a.mix:m"), ("a.mix", "m")),
    ],
)
def test_split_spec(spec: str | Path, parts: tuple[str, str | None]) -> None:
    assert split_spec(spec) == parts


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    path = write(tmp_path / "a:b", "let a = attention(4)\n" + MODEL)
    assert split_spec(path) == (str(path), None)
    assert codes(path) == []
