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
from mixerlang.kernels.attention.render import PASSES, passes, render
from mixerlang.kernels.attention.tiles import choose, table
from mixerlang.kernels.attention.variant import Tile, Variant, precision
from mixerlang.kernels.pieces import pieces

WINDOW = Variant(16, 4, 64, 64, 0.125, window=512)


def constants(source: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_0-9]+) = (?:tl\.constexpr\()?([^)\n]+)", source, re.M))


@pytest.mark.parametrize("name", PASSES)
def test_constants_stand_at_the_head(name: str) -> None:
    found = constants(render(name, WINDOW))
    assert {key: found[key] for key in ("HEADS", "GROUP", "WINDOW", "SCALE")} == {
        "HEADS": "16",
        "GROUP": "4",
        "WINDOW": "512",
        "SCALE": "0.125",
    }


@pytest.mark.parametrize("name", PASSES)
def test_tiles_stand_at_the_head(name: str) -> None:
    head = ast.parse(render(name, WINDOW)).body
    (tiles,) = (
        ast.literal_eval(line.value)
        for line in head
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "TILES"
    )
    assert set(tiles) == {(target, size) for target in table()["tiles"] for size in (2, 4)}
    for (target, size), options in tiles.items():
        assert options == choose(name, WINDOW, target, size).options(name)


def test_a_tile_as_launch_options() -> None:
    expected = {"BLOCK_Q": 64, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3}
    assert Tile(64, 32, 4, 3).options("forward") == expected
    assert Tile(32, 64, 4, 3).options("backward_kv") == expected
    assert Tile(64, 32, 4, 3, 128).options("forward") == expected | {"maxnreg": 128}


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("dim", [16, 100])
def test_only_what_the_variant_needs(
    name: str, packed: bool, window: int | None, sinks: int, dim: int
) -> None:
    variant = Variant(2, 1, dim, 64, 0.1, window, sinks if window else 0, packed)
    source = render(name, variant)
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(ast.parse(source)) if isinstance(node, ast.arg)}
    assert ("WINDOW" in names) == (window is not None)
    assert ("SINKS" in names) == (window is not None and sinks > 0)
    assert ("starts_ptr" in names) == packed
    assert ("USED" in names) == (dim == 100)
    assert not re.search(r"\{[{%#]|[ \t]+$|\n{4}", source, re.M)
    assert render(name, variant) == source


RULES = {"rate": 3, "strided": 5, "softcap": 9.0, "slopes": True, "sink_logits": True}
WORDS = r"\b(?:RATE|STRIDED|SOFTCAP|slopes_ptr|sink_logits_ptr)\b"


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_pieces_of_their_own(rule: str) -> None:
    variant = replace(WINDOW, sinks=2, **{rule: RULES[rule]})
    for name in passes(variant):
        source = render(name, variant)
        found = {word.removesuffix("_ptr").lower() for word in re.findall(WORDS, source)}
        # A logit without a value is there in the sum that the forward pass leaves.
        assert found == ({rule} if rule != "sink_logits" or name == "forward" else set())
        assert not re.search(r"\{[{%#]|[ \t]+$|\n{4}", source, re.M)


def test_sinks_have_a_pass_unless_their_queries_are_seen_anyway() -> None:
    sinks = replace(WINDOW, sinks=2)
    assert passes(WINDOW) == passes(replace(sinks, strided=4)) == PASSES
    assert passes(sinks) == (*PASSES, "backward_sinks")
    assert "SINKS" in constants(render("backward_sinks", sinks))


@pytest.mark.parametrize("name", PASSES)
def test_float32_stays_float32(name: str) -> None:
    source = render(name, WINDOW)
    assert source.count("input_precision=PRECISION)") == source.count("tl.dot(") > 0
    assert [precision("float32"), precision("float32", tf32=True)] == ["ieee", "tf32"]


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
        ({"window": 0}, "nearest 1"),
        ({"sinks": -1}, "sinks is -1"),
        ({"scale": 0.0}, "positive"),
        ({"softcap": -1.0}, "positive"),
        ({"rate": 0}, "rate is 0: nearest 1"),
        ({"rate": 2, "window": None}, "without a window"),
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
                    variant = Variant(1, 1, dim, dim, 1.0, window)
                    for size in (2, 4):
                        assert choose(name, variant, architecture, size).own >= 16


def test_file_names_tell_the_variant() -> None:
    assert WINDOW.stem("forward") == "attention_forward_h16x4_d64_w512"
    wide = replace(WINDOW, value_dim=128, window=None)
    assert wide.stem("backward_q") == "attention_backward_q_h16x4_d64_e128_full"
    changes = [{"sinks": 4}, {"scale": 0.1}, {"scale": 1e-7}, {"packed": True}, {"kv_heads": 2}]
    changes += [{rule: value} for rule, value in RULES.items()]
    variants = [WINDOW, wide, *(replace(WINDOW, **change) for change in changes)]
    stems = {variant.stem("forward") for variant in variants}
    assert len(stems) == len({render("forward", variant) for variant in variants}) == 12
    assert all(stem.isidentifier() for stem in stems)


def test_files_differ_where_their_names_do() -> None:
    """A gradient of the log-sum-exp is a matter of one pass."""
    other = replace(WINDOW, lse_grad=True)
    for name in PASSES:
        same = render(name, WINDOW) == render(name, other)
        assert (WINDOW.stem(name) == other.stem(name)) == same


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


def test_ops_register_under_their_package() -> None:
    assert loader.namespace("mixerlang.kernels.attention.op") == "mixerlang"
    assert loader.namespace("models.tiny-1.kernels.attention.op") == "models_tiny_1"


def test_a_package_may_carry_its_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = tmp_path / "carried_kernels" / "rendered"
    rendered.mkdir(parents=True)
    (rendered / "probe.py").write_text("ANSWER = 1\n")
    (rendered / "broken.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))
    package = "carried_kernels"
    assert loader.kernel(package, "probe", lambda: "ANSWER = 2\n").ANSWER == 1
    assert loader.kernel(package, "other", lambda: "ANSWER = 2\n").ANSWER == 2
    assert loader.kernel("json", "other", lambda: "ANSWER = 3\n").ANSWER == 3
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        loader.kernel(package, "broken", lambda: "ANSWER = 2\n")


def test_a_kernel_that_cannot_be_rendered_says_so() -> None:
    def render_without_jinja() -> str:
        raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")

    with pytest.raises(ImportError, match="json carries no other, and jinja2"):
        loader.kernel("json", "other", render_without_jinja)


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
