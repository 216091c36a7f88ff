"""train and run on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from mixerlang.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
SPEC = """\
model small {
  param w: int = 8
  vocab = 256; dim = 16; context = 32
  layers = [gated_deltanet(heads=2, head_dim=8), attention(heads=2, keep=window(w))]
}
"""
QUICK = ["--steps", "4", "--batch", "2", "--length", "16", "--eval-batches", "1",
         "--eval-every", "2", "--checkpoint-every", "2", "--limit", "5000"]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True, scope="module")
def folder_of_generated_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MIXERLANG_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specs") / "small.mix"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def trained(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = run("train", spec, "-o", folder, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert "finished at step 4" in result.stdout
    return folder


def test_train_leaves_a_log_and_checkpoints(trained: Path) -> None:
    events = [event["event"] for event in log(trained)]
    assert events[0] == "start"
    assert events.count("step") == 4
    assert (trained / "checkpoints/step-00000004/model.safetensors").is_file()


def test_train_resumes_to_the_same_numbers(spec: Path, trained: Path, tmp_path: Path) -> None:
    first = run("train", spec, "-o", tmp_path / "b", *QUICK, "--max-seconds", "0.001", "--json")
    paused = json.loads(first.stdout)
    assert paused["reason"] == "time limit"
    assert "step" in first.stderr  # progress goes there
    second = run("train", spec, "-o", tmp_path / "b", *QUICK, "--resume", "--json")
    done = json.loads(second.stdout)
    assert (done["step"], done["reason"]) == (4, "finished")
    assert done["loss"] == [e["loss"] for e in log(trained) if e["event"] == "eval"][-1]


def test_train_refuses_what_does_not_belong(spec: Path, trained: Path, tmp_path: Path) -> None:
    again = run("train", spec, "-o", trained, *QUICK)
    assert again.exit_code == 1
    assert "already holds a run" in again.stderr
    other = run("train", spec, "-o", trained, *QUICK, "--resume", "--set", "w=4")
    assert other.exit_code == 1
    assert "another spec" in other.stderr
    assert run("train", spec, "--resume").exit_code == 2
    missing = run("train", spec, "--data", tmp_path / "none.txt", *QUICK)
    assert missing.exit_code == 1
    assert "none.txt" in missing.stderr


def test_run_is_the_same_for_the_same_seed(spec: Path, trained: Path) -> None:
    args = ["run", spec, "--weights", trained, "--prompt", "é", "-n", "12", "--json"]
    first, second = (json.loads(run(*args, "--seed", "3").stdout) for _ in range(2))
    assert first == second
    assert first["prompt"] == "é"
    assert len(first["tokens"]) == 12
    assert bytes(first["tokens"]).decode("utf-8", "replace") == first["text"]
    assert json.loads(run(*args, "--seed", "4").stdout)["tokens"] != first["tokens"]


def test_run_prints_what_it_draws(spec: Path, trained: Path) -> None:
    args = ["run", spec, "--weights", trained, "--temperature", "0", "-n", "8"]
    result = run(*args)
    assert (result.exit_code, result.stderr) == (0, "")
    text = json.loads(run(*args, "--json").stdout)["text"]
    assert result.stdout == f"\n{text}\n"  # after the prompt, a newline by default


def test_run_of_a_folder_equals_that_of_its_spec(
    spec: Path, trained: Path, tmp_path: Path
) -> None:
    assert run("compile", spec, "-o", tmp_path / "out").exit_code == 0
    weights = trained / "checkpoints/step-00000004/model.safetensors"
    options = ["--weights", weights, "-n", "8", "--json", "--top-k", "5", "--top-p", "0.9"]
    texts = [run("run", target, *options).stdout for target in (spec, tmp_path / "out")]
    assert texts[0] == texts[1]
    assert run("run", tmp_path / "out", "--set", "w=4").exit_code == 2


def test_run_without_weights_says_so(spec: Path) -> None:
    result = run("run", spec, "-n", "1")
    assert result.exit_code == 0
    assert "no --weights" in result.stderr


@pytest.mark.parametrize("command", ["run", "train"])
def test_only_bytes_are_spoken(command: str, tmp_path: Path) -> None:
    path = tmp_path / "words.mix"
    path.write_text(SPEC.replace("256", "32_000"))
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "vocabulary of 32,000" in result.stderr
    assert run("compile", path, "-o", tmp_path / "out").exit_code == 0
    assert run(command, tmp_path / "out").exit_code == 1


def test_bad_weights_and_devices(spec: Path, trained: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"junk")
    for options, text in (
        (["--weights", junk], "cannot be read"),
        (["--weights", tmp_path], "holds no checkpoint"),
        (["--weights", tmp_path / "none"], "does not exist"),
        (["--weights", "/dev/null"], "is not a regular file"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--weights", trained, "--set", "w=300"], None),
    ):
        result = run("run", spec, "-n", "1", *options)
        if text is None:
            assert result.exit_code == 0
        else:
            assert (result.exit_code, result.stdout) == (1, "")
            assert text in result.stderr
    other = tmp_path / "other.mix"
    other.write_text(SPEC.replace("dim = 16", "dim = 32"))
    misfit = run("run", other, "--weights", trained)
    assert misfit.exit_code == 1
    assert "do not fit" in misfit.stderr


def test_a_batch_too_large_for_the_memory(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mixerlang.training.state import TrainingState

    def huge(*args: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(TrainingState, "_batch", huge)
    result = run("train", spec, *QUICK)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is not enough memory\n")


def test_a_prompt_of_any_bytes_is_valid_json(spec: Path) -> None:
    result = run("run", spec, "-n", "1", "--json", "--prompt", "a\udcff")
    assert json.loads(result.stdout)["prompt"] == "a\ufffd"


def test_usage(spec: Path) -> None:
    assert run("run", spec, "--prompt", "").exit_code == 2
    assert run("run", spec, "--top-p", "2").exit_code == 2
    for temperature in ("-1", "1e-9", "inf", "nan"):
        assert run("run", spec, "--temperature", temperature).exit_code == 2
    assert run("run", spec, "--seed", 2**64).exit_code == 2
    assert run("train", spec, "--batch", 10**20).exit_code == 2
    assert run("train", spec, "--steps", "0").exit_code == 2
