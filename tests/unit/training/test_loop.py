"""A run: it learns, repeats itself, stops in order, and goes on where it stopped."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mixerlang.training import (
    CheckpointError,
    Checkpoints,
    Corpus,
    CorpusError,
    DivergenceError,
    Event,
    TrainConfig,
    TrainingError,
    train,
)
from mixerlang.training.events import Evaluated, Stepped

Make = Callable[..., nn.Module]
TIMES = ("tokens_per_second", "seconds")


def numbers(directory: Path) -> list[dict[str, Any]]:
    """What the log says of steps and evaluations, without how long they took."""
    lines = map(json.loads, (directory / "log.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if key not in TIMES}
        for line in lines
        if line["event"] in ("step", "eval")
    ]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class StopAt:
    """A listener that presses Ctrl-C after some step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped) and event.step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_it_learns_more_than_the_frequencies_of_bytes(make_model: Make, corpus: Corpus) -> None:
    config = TrainConfig(steps=150, batch=16, length=32, lr=1e-2, eval_every=50)
    losses: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Evaluated):
            losses.append(event.bits_per_byte)

    model = make_model()
    result = train(model, corpus, config, on_event=listen)
    assert result.reason == "finished"
    assert losses[0] == pytest.approx(8, abs=0.8)  # nothing known: all bytes alike
    assert losses[-1] < result.unigram_entropy - 0.8
    assert result.last is not None
    assert result.last.bits_per_byte == losses[-1]


def test_the_same_seed_gives_the_same_digits(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    models = [make_model(), make_model()]
    for name, model in zip("ab", models, strict=True):
        train(model, corpus, config, directory=tmp_path / name)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert same_weights(*models)
    other = config.model_copy(update={"seed": 1})
    train(make_model(), corpus, other, directory=tmp_path / "c")
    assert numbers(tmp_path / "a") != numbers(tmp_path / "c")


@pytest.mark.parametrize("stop", [1, 4, 5, 7, 12])
def test_resumed_equals_uninterrupted(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path, stop: int
) -> None:
    whole, parted = make_model(), make_model()
    train(whole, corpus, config, directory=tmp_path / "whole")
    first = train(parted, corpus, config, directory=tmp_path / "parted", on_event=StopAt(stop))
    assert (first.step, first.reason) == (stop, "finished" if stop == 12 else "interrupted")

    resumed = make_model(seed=7)  # its own weights do not matter
    result = train(resumed, corpus, config, directory=tmp_path / "parted", resume=True)
    assert (result.step, result.reason) == (12, "finished")
    assert same_weights(resumed, whole)
    again = numbers(tmp_path / "parted")
    if stop == 12:  # a finished run is evaluated once more, and nothing else
        again[-2]["best"] = again[-1].pop("best")
        assert again.pop() | {"best": False} == again[-1]
        again[-1]["best"] = numbers(tmp_path / "whole")[-1]["best"]
    assert again == numbers(tmp_path / "whole")


def test_a_crash_goes_back_to_the_last_checkpoint(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    train(make_model(), corpus, config, directory=tmp_path / "whole")

    def crash(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 7:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(make_model(), corpus, config, directory=tmp_path / "run", on_event=crash)
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "st')
    train(make_model(), corpus, config, directory=tmp_path / "run", resume=True)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


def test_a_time_limit_pauses_without_changing_a_digit(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    train(make_model(), corpus, config, directory=tmp_path / "whole")
    hurried = config.model_copy(update={"max_seconds": 1e-9})
    results = [train(make_model(), corpus, hurried, directory=tmp_path / "run")]
    while results[-1].reason == "time limit":
        results.append(
            train(make_model(), corpus, hurried, directory=tmp_path / "run", resume=True)
        )
    assert [result.step for result in results] == list(range(1, 13))
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


def test_ctrl_c_twice_stops_at_once(make_model: Make, corpus: Corpus, config: TrainConfig) -> None:
    before = signal.getsignal(signal.SIGINT)

    def twice(event: Event) -> None:
        if isinstance(event, Stepped):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make_model(), corpus, config, on_event=twice)
    assert signal.getsignal(signal.SIGINT) is before


def test_it_runs_outside_the_main_thread(
    make_model: Make, corpus: Corpus, config: TrainConfig
) -> None:
    steps: list[int] = []
    work = threading.Thread(target=lambda: steps.append(train(make_model(), corpus, config).step))
    work.start()
    work.join()
    assert steps == [12]


class Breaks(nn.Module):
    """Gives NaN from some call in train() or in eval() mode on."""

    def __init__(self, inner: nn.Module, training: bool, calls: int) -> None:
        super().__init__()
        self.inner, self.when, self.calls = inner, training, calls

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls -= self.training is self.when
        logits = self.inner(tokens)
        return logits if self.calls > 0 else logits * math.nan


@pytest.mark.parametrize(
    ("training", "calls", "message"),
    [(True, 8, "step 8: loss nan"), (False, 5, "step 4: the validation loss is nan")],
)
def test_a_loss_that_is_no_number_stops_the_run(
    make_model: Make,
    corpus: Corpus,
    config: TrainConfig,
    tmp_path: Path,
    training: bool,
    calls: int,
    message: str,
) -> None:
    model = Breaks(make_model(), training, calls)
    with pytest.raises(DivergenceError, match=message):
        train(model, corpus, config, directory=tmp_path)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("stop", "diverged")


def test_the_log_tells_the_run(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    train(make_model(), corpus, config, directory=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "start"
    assert lines[0]["unigram_entropy"] == corpus.unigram_entropy
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(1, 13))
    assert [line["step"] for line in lines if line["event"] == "eval"] == [0, 4, 8, 12]
    step = next(line for line in lines if line["event"] == "step")
    assert step["bits_per_byte"] == pytest.approx(step["loss"] / math.log(2))
    assert step["gradient_norm"] > 0
    assert lines[-1]["reason"] == "finished"


def test_a_folder_with_a_run_is_not_overwritten(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    train(make_model(), corpus, config, directory=tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(make_model(), corpus, config, directory=tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, "lr was 0.01 and is now 0.5"),
        ({"steps": 20}, "steps was 12 and is now 20"),
    ],
)
def test_another_configuration_is_not_resumed(
    make_model: Make,
    corpus: Corpus,
    config: TrainConfig,
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    train(make_model(), corpus, config, directory=tmp_path)
    with pytest.raises(CheckpointError, match=message):
        other = config.model_copy(update=change)
        train(make_model(), corpus, other, directory=tmp_path, resume=True)


def test_another_model_spec_or_text_is_not_resumed(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    train(make_model(), corpus, config, directory=tmp_path, spec="one")

    def resume(model: nn.Module, text: Corpus, spec: str) -> None:
        train(model, text, config, directory=tmp_path, resume=True, spec=spec)

    with pytest.raises(CheckpointError, match="a model of other shapes"):
        resume(make_model(width=16), corpus, "one")
    with pytest.raises(CheckpointError, match="another spec"):
        resume(make_model(), corpus, "two")
    with pytest.raises(CheckpointError, match="another text"):
        resume(make_model(), Corpus("other", corpus.train, corpus.valid[1:]), "one")
    resume(make_model(), corpus, "one")


def test_nothing_to_resume_is_told(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        train(make_model(), corpus, config, directory=tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="needs the directory"):
        train(make_model(), corpus, config, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is not a directory"):
        train(make_model(), corpus, config, directory=tmp_path / "file")
    with pytest.raises(TrainingError, match="cannot hold a run"):
        train(make_model(), corpus, config, directory=tmp_path / "file" / "run")


def test_what_does_not_fit_is_told_before_the_first_step(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match="needs 100001"):
        long = config.model_copy(update={"length": 100_000})
        train(make_model(), corpus, long, directory=tmp_path / "run")
    with pytest.raises(TrainingError, match="knows 200 of their 256 values"):
        train(make_model(vocab=200), corpus, config, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_checkpoint_stays(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    """A learning rate that later wrecks the model leaves its best state behind."""
    wild = config.model_copy(update={"lr": 3.0, "warmup": 12})
    train(make_model(), corpus, wild, directory=tmp_path)
    losses = {n["step"]: n["loss"] for n in numbers(tmp_path) if n["event"] == "eval" and n["step"]}
    best = min(losses, key=losses.__getitem__)
    assert best < 12
    store = Checkpoints(tmp_path)
    found, last = store.best(), store.last()
    assert found is not None
    assert last is not None
    assert (found.name, last.name) == (f"step-{best:08d}", "step-00000012")
    assert sorted(store.folder.iterdir()) == [found, last]


def test_two_runs_never_share_a_folder(
    make_model: Make, corpus: Corpus, config: TrainConfig, tmp_path: Path
) -> None:
    def start_another(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 1:
            with pytest.raises(TrainingError, match="another run is at work"):
                train(make_model(), corpus, config, directory=tmp_path)

    train(make_model(), corpus, config, directory=tmp_path, on_event=start_another)
    steps = [line["step"] for line in numbers(tmp_path) if line["event"] == "step"]
    assert steps == list(range(1, 13))
