"""Tiles found on a GPU: kept beside the cache of kernels, read by later renderings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixerlang.codegen.compile import compile_spec
from mixerlang.codegen.tune import distinct
from mixerlang.kernels import tuned
from mixerlang.kernels.attention import render
from mixerlang.kernels.attention.variant import Variant
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).parents[2]
GPU = 'NVIDIA "H100" 80GB'
FOUND = {"options": {"BLOCK_Q": 128, "BLOCK_K": 64, "num_warps": 8, "num_stages": 3}, "ms": 0.1}
VARIANT = Variant(4, 4, 32, 32, 32**-0.5, window=64)
"""What specs/tiny/swa.mix calls for."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    return tmp_path


def save(gpu: str = GPU, size: int = 2, state: str | None = None) -> Path:
    return tuned.save(gpu, VARIANT.stem("forward"), state or render.state(), size, FOUND)


def test_later_renderings_use_what_was_found() -> None:
    shipped = render.tiles("forward", VARIANT)
    save()
    assert render.tiles("forward", VARIANT) == shipped | {(GPU, 2): FOUND["options"]}
    packed = Variant(4, 4, 32, 32, 32**-0.5, window=64, packed=True)
    assert (GPU, 2) in render.tiles("forward", packed)
    assert (GPU, 2) not in render.tiles("backward_q", VARIANT)
    scope: dict[str, object] = {}
    text = render.render("forward", VARIANT)
    exec(text[text.index("TILES = {") : text.index("\n}\n") + 3], scope)
    assert scope["TILES"] == render.tiles("forward", VARIANT)


def test_a_folder_says_so() -> None:
    save()
    compiled, _ = compile_spec(ROOT / "specs/tiny/swa.mix")
    assert compiled is not None
    tiles = [data.decode().count('80GB", 2): ') for name, data in compiled.files.items()
             if "/rendered/attention_forward" in name]
    assert tiles == [1, 1]


def test_other_gpus_and_sizes_stand_side_by_side() -> None:
    for gpu in (GPU, "A100"):
        for size in (2, 4):
            save(gpu, size)
    assert save() == save()
    assert len(tuned.load(VARIANT.stem("forward"), render.state())) == 4


def test_what_was_found_for_other_templates_is_not_used(tmp_path: Path) -> None:
    save(state="0123456789ab")
    assert (GPU, 2) not in render.tiles("forward", VARIANT)
    (tmp_path / "a.py.jinja").write_text("one")
    before = tuned.state_of(tmp_path)
    (tmp_path / "a.py.jinja").write_text("two")
    assert tuned.state_of(tmp_path) != before


def test_what_another_triton_found_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    monkeypatch.setattr(tuned, "_triton", lambda: "99.0")
    assert tuned.load(VARIANT.stem("forward"), render.state()) == {}


RACE = """
import sys
from mixerlang.kernels import tuned
for step in range(100):
    tuned.save("gpu", "kernel", "state", 2, {"options": {"BLOCK_Q": step}})
    assert set(tuned.load("kernel", "state")) == {("gpu", 2)}
"""


def test_processes_that_race_leave_whole_files(cache: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    runs = [subprocess.Popen([sys.executable, "-c", RACE], env=environment) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert tuned.load("kernel", "state") == {("gpu", 2): {"BLOCK_Q": 99}}
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 1


def test_each_specialisation_is_searched_once() -> None:
    graph, _ = build_graph(ROOT / "specs/tiny/lalte.mix")
    assert graph is not None
    found = distinct(graph)
    assert {variant.budget for variant in found} == {None, 16}
    assert len(found) == 2 and not any(variant.packed for variant in found)
