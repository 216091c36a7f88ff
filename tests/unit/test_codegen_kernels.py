"""The kernels that a folder carries: all that its model calls for, the same bytes every time, and
in need of nothing but torch and triton."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mixerlang
from mixerlang.codegen.compile import compile_spec
from mixerlang.codegen.folder import write_folder
from mixerlang.codegen.kernels import rendered
from mixerlang.nn import backend
from mixerlang.pipeline import build_graph

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*/*.mix"))

KEEPS = [
    "full",
    "window(5)",
    "window(4) | sinks(2)",
    "window(3) | strided(4)",
    "dilated(3, rate=2)",
    "sinks(3)",
    "window(9) | learned(budget=4, sinks=2)",
    "window(9) | learned(budget=4, capped=true)",
    "window(4) | evict(tova, budget=3)",
    "window(4) | evict(norm, budget=3)",
    "window(4) | evict(random, budget=3)",
    "evict(tova, budget=6)",
    "gated(window(4), evict(tova, budget=6))",
    "gated(compressed(3), blocks(3, top=4), window(4))",
    "by_head([window(9) | learned(budget=4), full])",
]
RULES = ["", ", position=alibi, softcap=5, sink_logits=true, scale=0.3, value_dim=6"]


def spec_of(keep: str, rule: str, folder: Path) -> Path:
    mixer = f"attention(heads=4, kv_heads=2, head_dim=8, keep={keep}{rule})"
    path = folder / "m.mix"
    path.write_text(f"model m {{ vocab = 17; dim = 16; context = 64; layers = [{mixer}] }}\n")
    return path


def files_of(spec: Path) -> dict[str, bytes]:
    graph, diagnostics = build_graph(spec)
    assert graph is not None, list(diagnostics)
    return rendered(graph)


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_rendered_files_are_modules_of_their_own(spec: Path) -> None:
    files = files_of(spec)
    assert files == files_of(spec)
    for path, data in files.items():
        assert ast.get_docstring(ast.parse(data)), path
        assert Path(path).stem.isidentifier() and len(Path(path).name) < 128


def test_a_header_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    compiled, _ = compile_spec("specs/tiny/lalte.mix")
    assert compiled is not None
    (name,) = [name for name in compiled.files
               if name.endswith("attention_forward_h4x4_d32_w32_b16.py")]
    lines = compiled.files[name].decode().splitlines()
    assert lines[:5] == [
        "# For lte (lalte.mix:12), layers 1, 3.",
        "# Written by mixerlang 0.1.0.",
        "# Spec:   specs/tiny/lalte.mix:lalte_tiny (copied to spec/)",
        "# Params: b=16, w=32",
        "# Again:  mixerlang compile specs/tiny/lalte.mix:lalte_tiny --set b=16 --set w=32 "
        "-o lalte_tiny",
    ]
    text = "\n".join(lines)
    for constant in ("HEADS = tl.constexpr(4)", "WINDOW = tl.constexpr(32)",
                     "BUDGET = tl.constexpr(16)", "forward.py.jinja"):
        assert constant in text


class Asked:
    """Which rendered kernels the calls of a model would launch on a GPU."""

    def __init__(self, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: set[str] = set()
        package = type(model).__module__.rpartition(".")[0]
        self.attention: Any = importlib.import_module(f"{package}.kernels.attention.op")
        self.passes = importlib.import_module("mixerlang.kernels.attention.render").passes
        dense = self.attention.dense
        monkeypatch.setattr(dense, "forward", self._forward(dense.forward))
        monkeypatch.setattr(dense, "backward", self._backward(dense.backward))
        scorer: Any = importlib.import_module(f"{package}.kernels.scorer.op")
        monkeypatch.setattr(scorer, "network_of", self._network(scorer.network_of))

    def _forward(self, run: Any) -> Any:
        def forward(q: Any, k: Any, v: Any, extras: Any, rule: Any) -> Any:
            variant = self.attention.variant(q, k, v, extras, rule)
            self.found.add(f"attention/rendered/{variant.stem('forward')}")
            return run(q, k, v, extras, rule)

        return forward

    def _backward(self, run: Any) -> Any:
        def backward(do: Any, dlse: Any, q: Any, k: Any, v: Any, extras: Any, rule: Any) -> Any:
            variant = self.attention.variant(q, k, v, extras, rule, dlse is not None)
            names = set(self.passes(variant)) - {"forward"}
            self.found |= {f"attention/rendered/{variant.stem(name)}" for name in names}
            return run(do, dlse, q, k, v, extras, rule)

        return backward

    def _network(self, run: Any) -> Any:
        def network_of(*args: Any) -> Any:
            network = run(*args)
            self.found.add(f"scorer/rendered/{network.stem('forward')}")
            return network

        return network_of


@pytest.mark.parametrize("rule", RULES, ids=["plain", "every_rule"])
@pytest.mark.parametrize("keep", KEEPS)
def test_a_folder_carries_what_its_model_calls_for(
    keep: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, evaluation, packed calls, gradients in both modes, prefill in parts, steps."""
    spec = spec_of(keep, rule, tmp_path)
    model = mixerlang.load(spec, seed=0)
    asked = Asked(model, monkeypatch)
    carried = {path.removeprefix("kernels/").removesuffix(".py") for path in files_of(spec)}
    tokens = torch.randint(17, (1, 21))
    with backend.forced("kernels"):
        for training in (True, False):
            model.train(training)
            for edges in (None, torch.tensor([0, 9, 21])):
                model(tokens, cu_seqlens=edges).sum().backward()
        with torch.no_grad():
            cache = model.new_cache(1, max_length=32)
            for part in tokens.split([12, 7, 1, 1], 1):
                model(part, cache=cache)
    assert asked.found <= carried
    # SDPA takes what it can here, and cannot everywhere: packed forward and backward stay.
    unused = {path for path in carried - asked.found if "packed" in path}
    assert not unused, unused


ALONE = """
import sys

for name in ("jinja2", "mixerlang", "pydantic", "networkx", "lark", "triton"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import torch
import model as package

tokens = torch.randint(256, (2, 40))
model = package.Model()
model(tokens).sum().backward()
model.eval()
print([len(new) for new in model.generate(tokens.tolist(), 4)])
"""


@pytest.mark.parametrize("way", ["eager", "kernels"])
def test_a_folder_runs_with_torch_alone(way: str, tmp_path: Path) -> None:
    """Where there is neither a GPU nor triton."""
    compiled, _ = compile_spec(ROOT / "specs/tiny/lalte.mix")
    assert compiled is not None
    assert not write_folder(compiled.files, tmp_path / "model").errors
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "MIXERLANG_BACKEND": way},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[4, 4]"


EVERY_MODULE = """
import importlib, pathlib, sys

for name in ("jinja2", "mixerlang", "pydantic", "networkx", "lark"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
paths = sorted(pathlib.Path(sys.argv[1]).rglob("model/*/**/*.py"))
for path in paths:
    importlib.import_module(".".join(path.relative_to(sys.argv[1]).with_suffix("").parts))
print(len(paths))
"""


def test_every_carried_module_can_be_imported(tmp_path: Path) -> None:
    """Those too that only a GPU calls for; with triton, without what renders and builds."""
    compiled, _ = compile_spec(ROOT / "specs/tiny/lalte.mix")
    assert compiled is not None
    assert not write_folder(compiled.files, tmp_path / "model").errors
    done = subprocess.run(
        [sys.executable, "-c", EVERY_MODULE, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 90


RECURRENCES = {
    "gated_deltanet(heads=2, head_dim=8)": {"scores", "solve", "scan", "join", "reverse",
                                            "inside", "gradients"},
    "gla(heads=2, key_dim=8, value_dim=8)": set(),  # a decay for each channel
    "recurrence(heads=2, key_dim=300)": set(),  # beyond the kernels
}  # fmt: skip


@pytest.mark.parametrize("mixer", RECURRENCES)
def test_recurrences_are_rendered_pass_by_pass(mixer: str, tmp_path: Path) -> None:
    path = tmp_path / "m.mix"
    path.write_text(f"model m {{ vocab = 17; dim = 16; context = 64; layers = [{mixer}] }}\n")
    found = [Path(name) for name in files_of(path) if "kernels/recurrence/" in name]
    passes = {name.stem.split("_")[1] for name in found if name.stem != "__init__"}
    assert passes == RECURRENCES[mixer]
