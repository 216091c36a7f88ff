"""Compiled folders on a GPU: they run the kernels that they carry, with torch and triton alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixerlang.codegen.compile import compile_spec
from mixerlang.codegen.folder import write_folder

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]

ALONE = """
import os
import sys

for name in ("jinja2", "mixerlang", "pydantic", "networkx", "lark"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import torch
import model as package

torch.manual_seed(0)
tokens = torch.randint(256, (2, 96), device="cuda")
model = package.Model().cuda()

def run(way, edges):
    os.environ["MIXERLANG_BACKEND"] = way
    model.zero_grad()
    logits = model(tokens if edges is None else tokens.view(1, -1), cu_seqlens=edges)
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

for training, edges in ((True, None), (False, torch.tensor([0, 50, 192], device="cuda"))):
    model.train(training)
    ours, plain = run("kernels", edges), run("eager", edges)
    errors = [float((a - b).norm() / (b.norm() + 1e-6)) for a, b in zip(ours, plain)]
    print("error", max(errors))
os.environ["MIXERLANG_BACKEND"] = "kernels"
model.eval()
print("new", [len(new) for new in model.generate(tokens.tolist(), 8)])
print("carried", sum(".rendered." in name for name in sys.modules))
"""

DROPOUT = ("lalte",)
"""Scorers draw: training differs from one run to the next."""


@pytest.mark.parametrize("name", ["swa", "transformer", "lalte", "nsa"])
def test_a_folder_runs_its_own_kernels(name: str, tmp_path: Path) -> None:
    compiled, _ = compile_spec(ROOT / f"specs/tiny/{name}.mix")
    assert compiled is not None
    assert not write_folder(compiled.files, tmp_path / "model").errors
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"MIXERLANG_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    errors = [float(value) for word, value in answers if word == "error"]
    print(name, errors)
    assert len(errors) == 2
    assert name in DROPOUT or max(errors) < 1e-3
    found = dict(answers)
    assert found["new"] == "[8, 8]"
    assert (int(found["carried"]) > 0) == (name != "nsa")
    assert not (tmp_path / "cache").exists(), "something was rendered anew"
