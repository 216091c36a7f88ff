"""Checkpoints appear whole or not at all, and damaged ones are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mixerlang.training import CheckpointError, Checkpoints, checkpoint
from mixerlang.training.checkpoint import Manifest, load, read_manifest

Make = Callable[..., nn.Module]


def manifest(step: int, best: tuple[int, float] | None = None) -> Manifest:
    return Manifest(step, {"lr": 0.1}, {"spec": "x"}, best)


def test_what_is_saved_is_loaded(make_model: Make, tmp_path: Path) -> None:
    model, other = make_model(), make_model(seed=1)
    path = Checkpoints(tmp_path).save(manifest(3, (2, 0.1)), model, {"numbers": torch.arange(3)})
    assert read_manifest(path) == manifest(3, (2, 0.1))
    assert torch.equal(load(path, other)["numbers"], torch.arange(3))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tied_weights_stay_tied(make_model: Make, tmp_path: Path) -> None:
    model, other = make_model(), make_model(seed=1)
    for tied in (model, other):
        tied.head.weight = tied.embedding.weight
    load(Checkpoints(tmp_path).save(manifest(1), model, {}), other)
    assert other.head.weight is other.embedding.weight
    assert torch.equal(model.head.weight, other.head.weight)


@pytest.mark.parametrize("call", ["save_model", "torch.save", "_write_manifest", "Path.rename"])
def test_an_interrupted_write_leaves_the_old_checkpoint(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    model, store = make_model(), Checkpoints(tmp_path)
    old = store.save(manifest(1), model, {"a": 1})

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"{checkpoint.__name__}.{call}", fail)
        with pytest.raises(CheckpointError, match="No space"):
            store.save(manifest(2), model, {"a": 2})
    assert store.last() == old
    assert load(old, model) == {"a": 1}

    new = store.save(manifest(2), model, {"a": 2})
    assert list(store.folder.iterdir()) == [new]


def test_a_write_that_fails_leaves_no_rest_and_says_what_stays(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    model, store = make_model(), Checkpoints(tmp_path)
    for steps, message in (((2,), r"00000002 cannot be written: .*No space"),
                           ((3, 4), r"00000004 cannot be written, and step-00000003 stays: ")):
        for step in steps[:-1]:
            store.save(manifest(step), model, {})
        with monkeypatch.context() as patch, pytest.raises(CheckpointError, match=message):
            patch.setattr(torch, "save", full)
            store.save(manifest(steps[-1]), model, {})
    assert [path.name for path in store.folder.iterdir()] == ["step-00000003"]


def test_the_last_and_the_best_stay(make_model: Make, tmp_path: Path) -> None:
    model, store = make_model(), Checkpoints(tmp_path)
    assert store.last() is None
    assert store.best() is None
    for step, best in [(1, None), (2, (2, 0.5)), (3, (2, 0.5)), (4, (2, 0.5))]:
        store.save(manifest(step, best), model, {})
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]
    best_path = store.best()
    assert best_path is not None
    assert best_path.name == "step-00000002"
    assert store.weights() == best_path / "model.safetensors"
    assert store.weights(best=False).parent == store.last()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "other").weights()


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_told(make_model: Make, tmp_path: Path, name: str, damage: str) -> None:
    model = make_model()
    path = Checkpoints(tmp_path).save(manifest(1), model, {"numbers": torch.arange(3)})
    content = bytearray((path / name).read_bytes())
    (path / name).unlink()
    if damage == "flip":
        content[len(content) // 2] ^= 1
    if damage != "remove":
        (path / name).write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(CheckpointError, match=f"{name}.* (is damaged|cannot be read)"):
        load(path, model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("[]", "not of format"),
        ('{"format": 99}', "not of format"),
        ('{"format": 1, "step": 1, "best": null}', "damaged"),
    ],
)
def test_a_damaged_manifest_is_told(
    make_model: Make, tmp_path: Path, text: str, message: str
) -> None:
    path = Checkpoints(tmp_path).save(manifest(1), make_model(), {})
    (path / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(path)
    with pytest.raises(CheckpointError, match=r"damaged|not of format"):
        load(path, make_model())


def test_weights_of_another_model_are_refused(make_model: Make, tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(manifest(1), make_model(), {})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(path, make_model(width=16))


def test_a_checkpoint_never_runs_code(make_model: Make, tmp_path: Path) -> None:
    """A pickle that calls a function is refused, even with matching hashes."""
    path = Checkpoints(tmp_path).save(manifest(1), make_model(), {"path": Path("x")})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(path, make_model())
