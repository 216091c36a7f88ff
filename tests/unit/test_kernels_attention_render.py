"""Rendering: what a specialised file says at its head, and what it leaves out."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixerlang.kernels import loader
from mixerlang.kernels.attention.render import PASSES, file_stem, render
from mixerlang.kernels.attention.tiles import choose, table
from mixerlang.kernels.attention.variant import Tile, Variant, pieces

WINDOW = Variant(16, 4, 64, 64, "bfloat16", 0.125, window=512)
TILE = Tile(64, 32, 4, 3)


def constants(source: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_0-9]+) = (?:tl\.constexpr\()?([^)\n]+)", source, re.M))


@pytest.mark.parametrize("name", PASSES)
def test_constants_stand_at_the_head(name: str) -> None:
    source = render(name, WINDOW, TILE)
    found = constants(source)
    block = ("BLOCK_Q", "BLOCK_K") if name != "backward_kv" else ("BLOCK_K", "BLOCK_Q")
    assert {key: found[key] for key in ("HEADS", "GROUP", "WINDOW", "SCALE", *block)} == {
        "HEADS": "16",
        "GROUP": "4",
        "WINDOW": "512",
        "SCALE": "0.125",
        block[0]: "64",
        block[1]: "32",
    }
    assert "'num_warps': 4" in source and "maxnreg" not in source
    assert "'maxnreg': 128" in render(name, WINDOW, replace(TILE, registers=128))


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("dim", [16, 100])
def test_only_what_the_variant_needs(
    name: str, packed: bool, window: int | None, sinks: int, dim: int
) -> None:
    variant = Variant(2, 1, dim, 64, "float32", 0.1, window, sinks if window else 0, packed)
    source = render(name, variant, TILE)
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(ast.parse(source)) if isinstance(node, ast.arg)}
    assert ("WINDOW" in names) == (window is not None)
    assert ("SINKS" in names) == (window is not None and sinks > 0)
    assert ("starts_ptr" in names) == packed
    assert ("USED" in names) == (dim == 100)
    assert not re.search(r"\{[{%#]|[ \t]+$|\n{4}", source, re.M)
    assert render(name, variant, TILE) == source


@pytest.mark.parametrize("name", PASSES)
def test_float32_stays_float32(name: str) -> None:
    exact = replace(WINDOW, dtype="float32")
    dots = render(name, exact, TILE).count("tl.dot(")
    assert render(name, exact, TILE).count('input_precision="ieee"') == dots > 0
    assert render(name, replace(exact, tf32=True), TILE).count('input_precision="tf32"') == dots
    assert "input_precision" not in render(name, WINDOW, TILE)


def test_pieces_cover_each_channel_once() -> None:
    for dim in range(1, 257):
        cut = pieces(dim)
        channels = [piece.start + index for piece in cut for index in range(piece.used)]
        assert channels == list(range(dim))
        assert all(piece.width & (piece.width - 1) == 0 and piece.width >= 16 for piece in cut)
        assert sum(piece.width for piece in cut) - dim < 16
    assert [piece.width for piece in pieces(100)] == [64, 32, 16]
    assert [piece.width for piece in pieces(256)] == [256]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "3 KV heads do not divide 16"),
        ({"head_dim": 300}, "nearest 256"),
        ({"value_dim": 0}, "value_dim is 0"),
        ({"dtype": "float64"}, "float64"),
        ({"window": 0}, "nearest 1"),
        ({"sinks": -1}, "sinks is -1"),
        ({"scale": 0.0}, "positive"),
    ],
)
def test_limits_are_told(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(WINDOW, **change)


def test_every_variant_has_a_tile() -> None:
    for architecture in table()["tiles"]:
        for name in PASSES:
            for dim in (1, 64, 65, 100, 128, 200, 256):
                for window in (None, 1, 5000):
                    for dtype in ("bfloat16", "float32"):
                        variant = Variant(1, 1, dim, dim, dtype, 1.0, window)
                        assert choose(name, variant, architecture).own >= 16


def test_file_names_tell_the_variant() -> None:
    assert file_stem("forward", WINDOW) == "attention_forward_d64_w512"
    wide = replace(WINDOW, value_dim=128, window=None)
    assert file_stem("backward_q", wide) == "attention_backward_q_d64_e128_full"
    assert file_stem("forward", replace(WINDOW, sinks=4)).endswith("_w512_s4")


def test_loader_writes_once_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path))
    module = loader.load("probe", "ANSWER = 42\n")
    assert module.ANSWER == 42
    assert loader.load("probe", "ANSWER = 42\n") is module
    path = loader.write("probe", "ANSWER = 42\n")
    before = path.stat().st_mtime_ns
    assert loader.write("probe", "ANSWER = 42\n").stat().st_mtime_ns == before
    assert loader.write("probe", "ANSWER = 43\n").parent != path.parent
    path.write_text("torn")  # what a crash of an older writer might have left
    assert loader.write("probe", "ANSWER = 42\n").read_text() == "ANSWER = 42\n"


WRITER = """
from mixerlang.kernels import loader

text = "VALUE = 1\\n" * 5000
for _ in range(20):
    path = loader.write("shared", text)
    assert path.read_text() == text
print(path)
"""


def test_parallel_writers_agree(tmp_path: Path) -> None:
    environment = os.environ | {"MIXERLANG_CACHE": str(tmp_path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outs = [writer.communicate(timeout=60)[0].decode().strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    (path,) = set(outs)
    assert [entry.name for entry in Path(path).parent.iterdir()] == ["shared.py"]
