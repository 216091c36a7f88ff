"""What a spec may cost, over all of its models: bounds that hold before anything is expanded."""

from __future__ import annotations

from ..source import Span
from .report import Reporter
from .values import Failed

STEP_LIMIT = 200_000
"""Expressions evaluated, items of lists, mixers applied."""
NODE_LIMIT = 100_000
"""Operations of the layers of all models."""


class Budget:
    """Shared by everything that is evaluated for one file."""

    def __init__(self) -> None:
        self._steps = 0
        self._nodes = 0

    def spend(self, steps: int, span: Span | None, report: Reporter) -> None:
        """Pay for steps of evaluation. Raises Failed, having reported it once, when none are
        left."""
        before, self._steps = self._steps, self._steps + steps
        if self._steps > STEP_LIMIT:
            if before <= STEP_LIMIT:
                report("MX011", span, f"the spec takes more than {STEP_LIMIT:,} steps to evaluate",
                       help="something doubles: f(x) = g(g(x)), or let b = mean(a, a)")
            raise Failed

    def place(self, nodes: int, span: Span | None, report: Reporter) -> None:
        """Pay for operations of layers."""
        self._nodes += nodes
        if self._nodes > NODE_LIMIT:
            report("MX012", span, f"the layers of this file hold more than {NODE_LIMIT:,} "
                   "operations", help="use fewer layers, or smaller blocks")
            raise Failed
