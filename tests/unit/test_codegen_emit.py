"""What the files of a model hold."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mixerlang.codegen.compile import Compiled, compile_spec
from mixerlang.codegen.emit import emit
from mixerlang.source import Source, Span
from mixerlang.version import VERSION

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*/*.mix"))
GOLDEN = ROOT / "tests" / "golden" / "lalte_tiny"


def compiled(spec: Path | str, **params: object) -> Compiled:
    result, diagnostics = compile_spec(spec, params)
    assert result is not None, list(diagnostics)
    return result


IMPORTS = os.pathsep.join([str(ROOT), *sys.path])
"""A fresh process finds what this one does."""


@pytest.fixture
def relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", ["model.py", "__init__.py"])
def test_golden(name: str, relative: None) -> None:
    """The tiny laLTE as a reader finds it. MIXERLANG_GOLDEN=write accepts what has changed."""
    files = compiled("specs/tiny/lalte.mix").files
    if os.environ.get("MIXERLANG_GOLDEN") == "write":
        (GOLDEN / f"{name}.txt").write_bytes(files[name])
    assert files[name].decode() == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_every_spec_gives_clean_python(spec: Path) -> None:
    files = compiled(spec).files
    for path, data in files.items():
        if path.endswith(".py"):
            compile(data, path, "exec", dont_inherit=True)
    assert str(ROOT).encode() not in b"".join(files.values())
    assert max(map(len, files["model.py"].decode().splitlines())) <= 100


def test_two_compiles_are_equal() -> None:
    """In processes whose sets are ordered differently, from a relative and an absolute path."""
    code = (
        "import hashlib, sys; from mixerlang.codegen.compile import compile_spec\n"
        "files = compile_spec(sys.argv[1])[0].files\n"
        "print([(p, hashlib.sha256(d).hexdigest()) for p, d in files.items()])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, "specs/tiny/lansa.mix"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": IMPORTS},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_largest_compiles_fast_and_without_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from mixerlang.codegen.compile import compile_spec\n"
        "files = compile_spec('specs/paper/lalte_1400m.mix')[0].files\n"
        "assert 'torch' not in sys.modules and 'triton' not in sys.modules\n"
        "print(time.perf_counter() - start)"
    )
    env = {**os.environ, "PYTHONPATH": IMPORTS}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 3


def test_header_and_config_tell_how_to_make_it_again(relative: None) -> None:
    files = compiled("specs/tiny/lalte.mix:lalte_tiny", w=24).files
    text = files["model.py"].decode()
    assert "# Spec:   specs/tiny/lalte.mix:lalte_tiny" in text
    assert (
        "# Again:  mixerlang compile specs/tiny/lalte.mix:lalte_tiny --set b=16 --set w=24 "
        "-o lalte_tiny" in text
    )
    config = json.loads(files["config.json"])
    assert (config["generator"], config["schema"]) == ("mixerlang", 1)
    assert config["params"] == {"b": 16, "w": 24}
    assert [layer["label"] for layer in config["layers"]] == ["gdn", "lte"] * 2
    assert [layer["mixers"] for layer in config["layers"][:2]] == [["recurrence"], ["attention"]]
    assert config["files"] == sorted(files)


def test_only_what_is_needed_is_carried_along() -> None:
    files = compiled(ROOT / "specs/tiny/gdn.mix").files
    assert "nn/recurrence.py" in files and "nn/attention.py" not in files
    assert "kernels/recurrence/reference.py" in files
    assert not any(path.startswith("kernels/attention/") for path in files)


def test_carried_files_import_nothing_else() -> None:
    """Relative imports inside the folder, and otherwise torch, numpy and safetensors; triton where
    kernels are."""
    files = compiled(ROOT / "specs/tiny/lalte.mix").files
    for path, data in files.items():
        if path.endswith(".py"):
            names = {name.split(".")[0] for name in imported(ast.parse(data))}
            allowed = sys.stdlib_module_names | {"torch", "numpy", "safetensors"}
            tries_triton = path.startswith("kernels/") or path == "nn/backend.py"
            allowed |= {"triton"} if tries_triton else set()
            assert names <= allowed, path


def imported(tree: ast.Module) -> Iterator[str]:
    """What a file imports from outside its folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            yield node.module


def test_imported_specs_keep_their_places(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "main").mkdir()
    (tmp_path / "lib" / "mixers.mix").write_text("let a = attention(2)\n")
    spec = tmp_path / "main" / "m.mix"
    spec.write_text(
        'import "../lib/mixers.mix"\nmodel m { vocab = 9; dim = 8; context = 8; layers = [a] }\n'
    )
    result, diagnostics = compile_spec(spec, root=tmp_path)
    assert result is not None, list(diagnostics)
    copies = sorted(path for path in result.files if path.startswith("spec/"))
    assert copies == ["spec/lib/mixers.mix", "spec/main/m.mix"]
    assert result.files["spec/main/m.mix"] == spec.read_bytes()


HOSTILE = [
    "evil\nimport os; os.abort()  #.mix",
    'a"""b\'\'\'.mix',
    "../../../etc/passwd",
    "/tmp/../x.mix",
    "a\rraise SystemExit.mix",
    "\u202e\u2028\x0c.mix",
    "{{ 7 * 7 }}{% raw %}.mix",
    "\udcff.mix",
    "",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_names_stay_in_comments(path: str) -> None:
    """Whatever a path, a label or a value holds, the code of the model is the same."""
    graph = compiled(ROOT / "specs/tiny/gdn.mix").graph
    plain = emit(graph, [Source("a.mix", "")])
    span = Span(Source(path, "\n"), 0, 1)
    graph.layers[:] = [replace(layer, label=path + "Gdn", span=span) for layer in graph.layers]
    graph.params.update({path: path})
    files = emit(graph, [Source(path, ""), Source(path, "")])
    assert code_of(files["model.py"], graph.layers[0].label) == code_of(plain["model.py"], "gdn")
    assert json.loads(files["config.json"])["name"] == "gdn_tiny"
    for name in files:
        assert not {"", ".", ".."}.intersection(name.split("/"))
        assert name.isascii() and name.isprintable()
    assert len([name for name in files if name.startswith("spec/")]) == 2


def code_of(model: bytes, label: str) -> str:
    """The model file without comments, its layer class by one name."""
    tree = ast.parse(model)
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return re.sub(rf"\b{names[0]}\b", "OneLayer", ast.unparse(tree))


def test_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
