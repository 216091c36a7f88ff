"""How the work of cross-entropy is cut into programs, and what it is specialised on."""

from __future__ import annotations

WIDEST = 4096
"""Columns that a program holds at a time."""

WARPS = 8


def constants(vocab: int, ignored: int) -> dict[str, int]:
    block = min(WIDEST, max(128, 1 << (vocab - 1).bit_length()))
    return {"VOCAB": vocab, "IGNORED": ignored, "BLOCK": block}
