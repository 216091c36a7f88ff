"""What a person sees of a run."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from torch import nn

from mixerlang.training import Corpus, TrainConfig, train
from mixerlang.training.events import Evaluated, Kept, Started, Stopped
from mixerlang.training.progress import ProgressView, kept_table


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=terminal)


def text(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_is_shown(
    make_model: Callable[..., nn.Module], corpus: Corpus, config: TrainConfig, terminal: bool
) -> None:
    with ProgressView(console(terminal)) as view:
        result = train(make_model(), corpus, config, on_event=view)
    shown = text(view.console)
    assert result.last is not None
    assert f"{result.last.bits_per_byte:.3f} bits/byte" in shown
    assert f"{corpus.unigram_entropy:.3f} bits/byte" in shown
    assert "tokens/s" in shown
    assert "finished at step 12" in shown
    assert ("\x1b" in shown) is terminal
    assert terminal or max(map(len, shown.splitlines())) <= 100


def test_what_each_head_keeps_is_shown_at_the_end() -> None:
    kept = {"layers.1.mixer.branches.0": Kept(0.0625, (0.25, 1.0), (0.125, 1.0), (0.5, 1.0))}
    view = ProgressView(console(terminal=False))
    view(Started(0, 1, 1, "text", 10, 10, 4.0))
    view(Evaluated(1, 1.0, 1.4, True, kept))
    assert "heads keep 62.5%" in text(view.console)
    assert "layers.1.mixer" not in text(view.console)
    view(Stopped(1, "finished", 1.0))
    lines = text(view.console).splitlines()
    rows = [line.split() for line in lines if "%" in line and "step" not in line]
    assert len(rows) == 2
    assert "layers.1.mixer" in rows[0]
    assert "25.0%" in rows[0]
    assert "12.5%" in rows[0]
    assert "50.0%" in rows[0]
    assert "6.2%" in rows[1]


def test_the_table_fits_100_columns() -> None:
    kept = {
        f"layers.{'deep.' * 30}{n}": Kept(0.1, (0.5,) * 3, (0.0,) * 3, (1.0,) * 3) for n in (1, 2)
    }
    shown = console(terminal=False)
    shown.print(kept_table(kept, "#"))
    lines = text(shown).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("50.0%" in line for line in lines) == 6
