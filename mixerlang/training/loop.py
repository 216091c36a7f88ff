"""Train a model on text: the whole of a run, from its folder to its last evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from .checkpoint import Checkpoints, Manifest, load, read_manifest
from .config import TrainConfig
from .data import Corpus
from .errors import CheckpointError, DivergenceError, TrainingError
from .evaluate import evaluate, require_bytes
from .events import Evaluated, Event, Listener, Reason, Result, Saved, Started, Stopped
from .guards import claimed, identity_of, interrupts, require_same, seeded
from .log import Log, rewind
from .state import TrainingState


def train(
    model: nn.Module,
    corpus: Corpus,
    config: TrainConfig,
    *,
    directory: str | Path | None = None,
    resume: bool = False,
    spec: str = "",
    on_event: Listener | None = None,
) -> Result:
    """Train `model` in place, on the device where it is, and return what came of it.

    directory: gets `log.jsonl` and checkpoints; without one nothing is written.
    resume: go on from the last checkpoint there, to the same digits as without a pause.
    spec: tells this model from others of the same shapes (a digest of its text).
    """
    corpus.require(config.length)
    require_bytes(model)
    run = _Run(model, corpus, config, None if directory is None else Path(directory), spec)
    with ExitStack() as stack:
        stack.enter_context(seeded(config.seed, run.state.device))
        interrupted = stack.enter_context(interrupts())
        run.open(stack, resume, on_event)
        return run.loop(interrupted)


class _Run:
    """A training state together with its text, its folder and its listeners."""

    def __init__(
        self,
        model: nn.Module,
        corpus: Corpus,
        config: TrainConfig,
        directory: Path | None,
        spec: str,
    ) -> None:
        self.state = TrainingState(model, config)
        self.corpus, self.config, self.directory = corpus, config, directory
        self.checkpoints = None if directory is None else Checkpoints(directory)
        self.identity = identity_of(model, spec, corpus.digest)
        self.listeners: list[Listener] = []
        self.last: Evaluated | None = None
        self.saved_step: int | None = None

    def open(self, stack: ExitStack, resume: bool, on_event: Listener | None) -> None:
        """Enter the folder, at its last checkpoint if asked to, and attach listeners."""
        if self.directory is not None and self.checkpoints is not None:
            last = self.checkpoints.last()
            self._require_place(last, resume)
            try:
                self._enter(stack, self.directory, last)
            except OSError as error:
                raise TrainingError(f"{self.directory} cannot hold a run: {error}") from error
        elif resume:
            raise CheckpointError("resume needs the directory of the run")
        if on_event is not None:
            self.listeners.append(on_event)

    def _enter(self, stack: ExitStack, directory: Path, last: Path | None) -> None:
        """Claim the folder, go back to its last checkpoint, and open the log up to there."""
        directory.mkdir(parents=True, exist_ok=True)
        stack.enter_context(claimed(directory))
        if last is not None:
            self._restore(last)
        rewind(directory / "log.jsonl", -1 if last is None else self.state.step)
        log = Log(directory / "log.jsonl")
        stack.callback(log.close)
        self.listeners.append(log)

    def loop(self, interrupted: Callable[[], bool]) -> Result:
        state = self.state
        start = time.perf_counter()

        def elapsed() -> float:
            return time.perf_counter() - start

        self.emit(self._started())
        try:
            reason = self._steps(interrupted, elapsed)
        except DivergenceError:
            self.emit(Stopped(state.step, "diverged", elapsed()))
            raise
        self._save()
        self.emit(Stopped(state.step, reason, elapsed()))
        entropy = self.corpus.unigram_entropy
        return Result(state.step, reason, elapsed(), self.last, entropy, self.directory)

    def _steps(self, interrupted: Callable[[], bool], elapsed: Callable[[], float]) -> Reason:
        """Steps until the last one, or until something asks for a pause (after one at least)."""
        state, config = self.state, self.config
        if state.step in (0, config.steps):
            self._evaluate()
        while state.step < config.steps:
            self.emit(state.advance(self.corpus))
            self._after_step()
            if state.step == config.steps:
                break
            if interrupted():
                return "interrupted"
            if config.max_seconds is not None and elapsed() > config.max_seconds:
                return "time limit"
        return "finished"

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _after_step(self) -> None:
        """Evaluate and save when it is time, and whenever the model is the best so far."""
        step, config = self.state.step, self.config
        save = step % config.checkpoint_every == 0
        if step % config.eval_every == 0 or step == config.steps:
            save |= self._evaluate().best
        if save:
            self._save()

    def _evaluate(self) -> Evaluated:
        event = evaluate(self.state, self.corpus)
        if event.best and self.state.step > 0:
            self.state.best = (event.step, event.loss)
        self.last = event
        self.emit(event)
        return event

    def _save(self) -> None:
        state = self.state
        if self.checkpoints is None or self.directory is None or self.saved_step == state.step:
            return
        config = self.config.model_dump(mode="json")
        manifest = Manifest(state.step, config, self.identity, state.best)
        path = self.checkpoints.save(manifest, state.model, state.state_dict())
        self.saved_step = state.step
        self.emit(Saved(state.step, path.relative_to(self.directory).as_posix()))

    def _restore(self, path: Path) -> None:
        manifest = read_manifest(path)
        require_same(path, manifest, self.config, self.identity)
        self.state.load_state_dict(load(path, self.state.model))
        self.state.best = manifest.best
        self.saved_step = manifest.step

    def _require_place(self, last: Path | None, resume: bool) -> None:
        """A new run takes a folder without checkpoints, a resumed one a folder with some."""
        assert self.directory is not None
        if self.directory.exists() and not self.directory.is_dir():
            raise CheckpointError(f"{self.directory} is not a directory")
        if resume and last is None:
            raise CheckpointError(f"{self.directory} holds no checkpoint to resume from")
        if not resume and last is not None:
            raise CheckpointError(
                f"{self.directory} already holds a run ({last.name}): resume it, or name another "
                "directory"
            )

    def _started(self) -> Started:
        parameters = sum(p.numel() for p in self.state.model.parameters())
        return Started(
            step=self.state.step,
            steps=self.config.steps,
            parameters=parameters,
            corpus=self.corpus.name,
            train_bytes=len(self.corpus.train),
            valid_bytes=len(self.corpus.valid),
            unigram_entropy=self.corpus.unigram_entropy,
        )
