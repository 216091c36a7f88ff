"""What tests of kernels built ahead of time allow the assembler."""

from __future__ import annotations

from importlib.metadata import version

SPARE = 0 if version("triton").startswith("3.6.") else 32
"""Bytes of registers that may spill: none under the Triton that tiles were chosen with; that of
another differs by a few."""
