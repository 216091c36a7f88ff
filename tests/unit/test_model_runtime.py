"""From a spec to a running model: load, the cache of folders, folders on their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mixerlang.codegen.compile import compile_spec
from mixerlang.codegen.emit import write_folder
from mixerlang.errors import FolderError, MixerlangError, SpecError
from mixerlang.runtime.cache import cached
from mixerlang.runtime.load import import_folder, load, load_folder

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs" / "tiny" / "lalte.mix"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    result, _ = compile_spec(SPEC)
    assert result is not None
    assert not list(write_folder(result.files, tmp_path / "lalte_tiny"))
    return tmp_path / "lalte_tiny"


def test_load_runs_what_compile_writes(folder: Path) -> None:
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        loaded = load(SPEC, seed=0).eval()(ids)
        written = load_folder(folder, seed=0).eval()(ids)
    assert torch.equal(loaded, written)


def test_params_device_and_dtype() -> None:
    model = load(SPEC, params={"w": 24}, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.new_cache(1).nbytes < load(SPEC, dtype="bfloat16").new_cache(1).nbytes
    assert load(SPEC, device="meta").embedding.weight.is_meta
    with pytest.raises(ValueError, match="dtype must be"):
        load(SPEC, dtype="int8")
    with pytest.raises(ValueError, match="dtype must be"):
        load(SPEC, dtype="load")


def test_the_spec_says_the_dtype(tmp_path: Path) -> None:
    (tmp_path / "m.mix").write_text(
        "model m { vocab = 9; dim = 8; context = 8; dtype = bfloat16; layers = [attention(2)] }"
    )
    assert load(tmp_path / "m.mix").embedding.weight.dtype == torch.bfloat16
    assert load(tmp_path / "m.mix", dtype=torch.float32).embedding.weight.dtype == torch.float32


def test_errors_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "m.mix").write_text("model m { vocab = 9; dim = 8; layers = [atention(2)] }")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "m.mix")
    codes = [diagnostic.code for diagnostic in caught.value.diagnostics]
    assert "MX201" in codes and isinstance(caught.value, MixerlangError)
    assert "m.mix:1:" in str(caught.value) and "atention" in str(caught.value)
    with pytest.raises(SpecError, match="MX001"):
        load(tmp_path / "missing.mix")
    with pytest.raises(SpecError, match="MX207"):
        load(f"{SPEC}:other")
    with pytest.raises(SpecError, match="MX208"):
        load(SPEC, params={"nope": 1})


def test_one_folder_per_contents(own_cache: Path) -> None:
    first, again = load(SPEC), load(SPEC)
    assert type(first) is type(again)
    assert len(list(own_cache.iterdir())) == 1
    other = load(SPEC, params={"w": 24})
    assert type(other) is not type(first) and len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["edited", "truncated", "missing", "shadowed"])
def test_a_damaged_cache_is_mended(damage: str, own_cache: Path) -> None:
    load(SPEC)
    (model_file,) = own_cache.glob("*/*/model.py")
    text = model_file.read_text()
    if damage == "edited":
        model_file.write_text("raise RuntimeError('edited')")
    elif damage == "truncated":
        model_file.write_text(text[: len(text) // 2])
    elif damage == "missing":
        model_file.unlink()
    else:  # a package goes before a module of the same name
        (model_file.parent / "model").mkdir()
        (model_file.parent / "model" / "__init__.py").write_text("raise RuntimeError('shadowed')")
    load(SPEC)
    assert model_file.read_text() == text
    assert [path.name for path in model_file.parent.glob("model*")] == ["model.py"]
    assert len(list(own_cache.iterdir())) == 1


def test_processes_that_race_for_the_cache(tmp_path: Path, own_cache: Path) -> None:
    """Several put many folders in place at once."""
    code = (
        "import sys; from mixerlang.runtime.cache import cached\n"
        "for n in range(200): cached({'a.py': b'x' * n, 'b/c.py': b'y'}, 'm')\n"
        "assert 'torch' not in sys.modules"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert len(list(own_cache.iterdir())) == 200
    assert cached({"a.py": b"", "b/c.py": b"y"}, "m").is_dir()
    assert len(list(own_cache.iterdir())) == 200


def test_a_folder_that_fails_to_import_leaves_nothing(folder: Path) -> None:
    (folder / "nn" / "ffn.py").write_text("raise RuntimeError('broken')")
    before = set(sys.modules)
    with pytest.raises(RuntimeError, match="broken"):
        import_folder(folder)
    left = {name for name in set(sys.modules) - before if name.startswith("_mixerlang")}
    assert not left


@pytest.mark.parametrize(
    ("config", "message"),
    [(None, "no readable"), ("[", "no readable"), ("{}", "no output of mixerlang"),
     ('{"generator": "mixerlang", "schema": 2}', "compile it again")],
)  # fmt: skip
def test_folders_that_are_not_ours(config: str | None, message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(FolderError, match=message):
        load_folder(tmp_path)


def test_threads_that_race_for_an_import(folder: Path) -> None:
    """None sees a package that another is still importing."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: import_folder(folder).Model, range(4)))
    assert len(set(found)) == 1


ALONE = """
import sys, json
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"mixerlang", "lark", "pydantic", "networkx", "jinja2", "rich"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[1])
import torch, lalte_tiny
torch.manual_seed(0)
model = lalte_tiny.Model()
ids = torch.arange(40).view(2, 20)
with torch.no_grad():
    logits = model.eval()(ids)
model.save("w.safetensors")
other = lalte_tiny.Model().load("w.safetensors").eval()
with torch.no_grad():
    assert torch.equal(other(ids), logits)
assert not [m for m in sys.modules if m.split(".")[0] in ("mixerlang", "pydantic")]
print(json.dumps([model.generate([[1, 2, 3], [4]], 5), logits[0, -1, :5].tolist()]))
"""


def test_a_folder_runs_without_mixerlang(folder: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, str(folder.parent)],
        cwd=folder.parent,
        env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    generated, numbers = json.loads(run.stdout)
    model = load(SPEC, seed=0)
    assert generated == model.generate([[1, 2, 3], [4]], 5)
    with torch.no_grad():
        logits = model.eval()(torch.arange(40).view(2, 20))[0, -1, :5]
    torch.testing.assert_close(torch.tensor(numbers), logits)
