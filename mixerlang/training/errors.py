"""What can go wrong in a run, said to the person who started it.

TrainingError
├── CorpusError       the text cannot be had, or is too short
├── CheckpointError   a checkpoint cannot be read, or belongs to another run
└── DivergenceError   the loss or its gradient is no longer a number
"""

from __future__ import annotations


class TrainingError(Exception):
    """A run cannot start or go on; the message says why and what to do."""


class CorpusError(TrainingError):
    """The text cannot be had, or is too short."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read, or belongs to another run."""


class DivergenceError(TrainingError):
    """The loss or its gradient is no longer a number."""
