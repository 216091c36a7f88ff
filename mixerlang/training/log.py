"""The log of a run: one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import TrainingError
from .events import Event


class Log:
    """Appends events to `log.jsonl`; each line is on its way to the disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        line = json.dumps(event.record(), allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"{self._path} cannot be written: {error}") from error

    def close(self) -> None:
        self._file.close()


def rewind(path: Path, step: int) -> None:
    """Drop what a log says of later steps, which a resumed run takes again.

    A line that a crash cut short goes too.
    """
    if not path.exists():
        return
    kept = [
        line
        for line in path.read_text("utf-8", errors="replace").splitlines()
        if _step(line) <= step
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), "utf-8")
    os.replace(temporary, path)


def _step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
