"""Writing a folder: whole or not at all, and never over anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixerlang.codegen import folder
from mixerlang.codegen.folder import write_folder


def files(text: str = "first") -> dict[str, bytes]:
    names = ["config.json", "model.py", "nn/norm.py"]
    config = {"generator": "mixerlang", "schema": 1, "files": names}
    return {
        "config.json": json.dumps(config).encode(),
        "model.py": text.encode(),
        "nn/norm.py": b"norm",
    }


def contents(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def codes(target: Path, text: str = "first") -> list[str]:
    return [diagnostic.code for diagnostic in write_folder(files(text), target)]


def test_writes_a_new_folder_and_its_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out"
    assert codes(target) == []
    assert contents(target) == files()
    assert list(target.parent.iterdir()) == [target]


def test_replaces_its_own_output_and_an_empty_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    assert codes(target) == []
    (target / "nn" / "__pycache__").mkdir()
    (target / "nn" / "__pycache__" / "norm.pyc").write_bytes(b"x")
    assert codes(target, "second") == []
    assert contents(target) == files("second")
    assert list(tmp_path.iterdir()) == [target]


CONFIGS = ["", "[]", "{}", '{"generator": "other", "files": []}', '{"generator": "mixerlang"}',
           "[" * 100_000]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_refuses_a_folder_of_something_else(config: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(config)
    assert codes(tmp_path / "out") == ["MX007"]
    assert contents(tmp_path) == {"out/config.json": config.encode()}


@pytest.mark.parametrize("extra", ["model.safetensors", "nn/mine.py"])
def test_refuses_where_somebody_keeps_a_file(extra: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert codes(target) == []
    (target / extra).write_bytes(b"precious")
    (diagnostic,) = write_folder(files("second"), target)
    assert diagnostic.code == "MX007" and extra in diagnostic.message
    assert contents(target) == files() | {extra: b"precious"}


def test_refuses_files_and_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "file/in/it", "link", "dangling"):
        assert codes(tmp_path / name) == ["MX007"]
    assert codes(Path("/")) == ["MX007"] and codes(Path("..")) == ["MX007"]
    assert contents(tmp_path) == {"file": b"x"}
    assert not list((tmp_path / "real").iterdir())


def test_refuses_a_link_inside_its_own_output(tmp_path: Path) -> None:
    """Walking would not see what hangs on it."""
    assert codes(tmp_path / "out") == []
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "data").symlink_to(tmp_path / "elsewhere")
    assert codes(tmp_path / "out") == ["MX007"]


@pytest.mark.parametrize("at", ["write", "rename"])
@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_all_as_it_was(
    at: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    if before:
        assert codes(target) == []

    def fail_writing(self: Path, data: bytes) -> int:
        if self.name == "norm.py":
            raise OSError("disk full")
        return real_write(self, data)

    def fail_renaming(self: Path, other: Path) -> Path:
        if ".new-" in self.name:
            raise OSError("no permission")
        return real_rename(self, other)

    real_write, real_rename = Path.write_bytes, Path.rename
    if at == "write":
        monkeypatch.setattr(Path, "write_bytes", fail_writing)
    else:
        monkeypatch.setattr(Path, "rename", fail_renaming)
    with pytest.raises(OSError, match="disk full|no permission"):
        write_folder(files("second"), target)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == ([target] if before else [])
    if before:
        assert contents(target) == files()


RACE = """
import sys
from mixerlang.codegen.folder import _sibling, _swap, _write
from pathlib import Path
target = Path(sys.argv[1])
for n in range(200):
    new = _sibling(target, "new")
    _write({"model.py": b"x"}, new)
    _swap(new, target)
"""


def test_processes_that_race_for_a_folder(tmp_path: Path) -> None:
    """The last one wins, and nothing is left beside."""
    command = [sys.executable, "-c", RACE, str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [subprocess.Popen(command, env=env) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert contents(tmp_path) == {"out/model.py": b"x"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        write_folder({"../evil": b"x"}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_config_name_is_what_emit_writes() -> None:
    assert folder.CONFIG in files()
