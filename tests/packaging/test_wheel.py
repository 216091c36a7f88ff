"""The wheel holds the tracked files of the package and nothing else, and works on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKS = {"mixerlang/grammar": "grammar", "mixerlang/codegen": "codegen",
         "mixerlang/kernels": "kernels"}


def tracked() -> list[str]:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    return [name for name in names if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files alone."""
    tree = tmp_path_factory.mktemp("tree")
    for name in tracked():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", str(out), str(tree)],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the wheel, not the checkout, is what `import mixerlang` finds."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--target", str(site), str(wheel)],
        check=True,
    )
    return {**os.environ, "PYTHONPATH": str(site), "MIXERLANG_CACHE": str(site / "cache")}


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    wanted = {name for name in tracked() if name.startswith("mixerlang/")} - LINKS.keys()
    for inside, outside in LINKS.items():
        prefix = f"{outside}/"
        wanted |= {
            f"{inside}/{name.removeprefix(prefix)}" for name in tracked() if name.startswith(prefix)
        }
    assert package == wanted


COMMANDS = {
    "version": ["--version"],
    "check": ["check", "spec.mix"],
    "fmt": ["fmt", "--check", "spec.mix"],
    "list": ["list"],
    "show": ["show", "gated_deltanet"],
    "graph": ["graph", "spec.mix"],
    "analyze": ["analyze", "spec.mix", "--json"],
    "explain": ["explain", "MX201"],
    "compile": ["compile", "spec.mix", "-o", "out"],
    "train": ["train", "spec.mix", "--data", "text.txt", "--steps", "2", "--batch", "2",
              "--length", "32", "-o", "run"],
    "run": ["run", "spec.mix", "--prompt", "The ", "--max-new-tokens", "3"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_away_from_the_checkout(
    name: str, installed: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(ROOT / "specs/tiny/lalte.mix", tmp_path / "spec.mix")
    (tmp_path / "text.txt").write_text("a b c d e f g. " * 200)
    where = "import mixerlang, sys; sys.stderr.write(mixerlang.__file__); "
    script = f"{where}sys.argv[0] = 'mixerlang'; from mixerlang.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *COMMANDS[name]],
        cwd=tmp_path, env=installed, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed["PYTHONPATH"] in done.stderr
    assert str(ROOT) not in done.stdout
