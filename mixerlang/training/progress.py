"""Shows a run to the person who waits for it: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .events import Evaluated, Event, Kept, Started, Stepped, Stopped

_LINES = 10
"""Plain lines over a whole run."""
_BAR = 16
"""Columns of the bars of what a head keeps."""


class ProgressView:
    """A listener for `train`, used in a `with`: `train(..., on_event=view)`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
        )
        self._task = self._bar.add_task("train", total=1, status="")
        self._steps = 1
        self._last: Evaluated | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_bar()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._start(event)
            case Stepped():
                self._step(event)
            case Evaluated():
                self._last = event
                self._line(
                    f"step {event.step:>6}   validation loss {event.loss:.4f}   "
                    f"{event.bits_per_byte:.3f} bits/byte{_kept_overall(event.kept)}"
                )
            case Stopped():
                self._stop(event)

    def _start(self, event: Started) -> None:
        self._steps = event.steps
        self._bar.update(self._task, total=event.steps, completed=event.step)
        self._line(
            f"{event.parameters:,} parameters, {event.train_bytes:,} bytes of {event.corpus} and "
            f"{event.valid_bytes:,} to validate\n"
            f"without context the validation text takes {event.unigram_entropy:.3f} bits/byte"
        )

    def _step(self, event: Stepped) -> None:
        status = (
            f"loss {event.loss:.3f}, {event.bits_per_byte:.2f} bits/byte, "
            f"{event.tokens_per_second:,.0f} tokens/s"
        )
        if self.console.is_terminal:
            self._bar.update(self._task, completed=event.step, status=status)
        elif event.step % max(1, self._steps // _LINES) == 0:
            self._line(f"step {event.step:>6}   training {status}")

    def _end_bar(self) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def _stop(self, event: Stopped) -> None:
        self._end_bar()
        self._line(f"{event.reason} at step {event.step:,} after {event.seconds:.1f} s")
        if self._last is not None and self._last.kept:
            fill = "█" if self.console.encoding.startswith("utf") else "#"
            self.console.print(kept_table(self._last.kept, fill))

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _kept_overall(kept: dict[str, Kept]) -> str:
    parts = [part for heads in kept.values() for part in heads.mean]
    return f"   heads keep {sum(parts) / len(parts):.1%}" if parts else ""


def kept_table(kept: dict[str, Kept], fill: str) -> Table:
    """One row per head: the part of the tokens that score above 0, beside the budget."""
    table = Table(title="What each head keeps of a sequence (tokens that score above 0)")
    table.add_column("layer", overflow="fold")
    for name in ("head", "mean", "min", "max", "budget"):
        table.add_column(name, justify="right")
    table.add_column("", width=_BAR)
    for path, heads in kept.items():
        rows = zip(heads.mean, heads.least, heads.most, strict=True)
        for head, (mean, least, most) in enumerate(rows):
            values = [f"{value:.1%}" for value in (mean, least, most, heads.budget)]
            layer = path.removesuffix(".branches.0") if head == 0 else ""
            table.add_row(layer, str(head), *values, fill * round(_BAR * mean))
        table.add_section()
    return table
