"""The public face: small, lazy, and free of torch until a model is wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mixerlang

ROOT = Path(__file__).resolve().parents[2]
FACE = {
    "FolderError", "MixerlangError", "SpecError", "__version__", "analyze", "build_graph", "check",
    "compile", "load", "load_folder",
}


def test_the_face_is_small() -> None:
    assert set(mixerlang.__all__) == FACE
    assert set(dir(mixerlang)) >= FACE
    for name in FACE:
        assert getattr(mixerlang, name) is not None


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        mixerlang.lode  # noqa: B018


def test_version_is_that_of_the_package() -> None:
    assert f'version = "{mixerlang.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_import_is_light() -> None:
    """Neither importing nor checking, analysing and compiling needs torch."""
    code = f"""
import sys, tempfile, mixerlang
assert not [name for name in sys.modules if name.startswith("mixerlang.")]
graph, diagnostics = mixerlang.build_graph({str(ROOT / "specs/tiny/lalte.mix")!r}, {{"w": 40}})
assert graph.params == {{"w": 40, "b": 16}}
assert mixerlang.analyze(graph).total.parameters == graph.parameters()
mixerlang.compile({str(ROOT / "specs/tiny/lalte.mix")!r}, tempfile.mkdtemp())
assert not {{"torch", "triton", "rich", "typer"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_compile_writes_a_folder_or_raises(tmp_path: Path) -> None:
    spec = ROOT / "specs/tiny/gdn.mix"
    folder = mixerlang.compile(spec, tmp_path / "out")
    assert (folder / "model.py").is_file()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(mixerlang.SpecError, match=r"MX007"):
        mixerlang.compile(spec, folder)
    with pytest.raises(mixerlang.SpecError, match=r"MX208.*nope") as raised:
        mixerlang.compile(spec, tmp_path / "other", params={"nope": 1})
    assert [item.code for item in raised.value.diagnostics] == ["MX208"]
    assert not (tmp_path / "other").exists()
    assert issubclass(mixerlang.SpecError, mixerlang.MixerlangError)
